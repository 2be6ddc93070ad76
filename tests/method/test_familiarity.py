"""The likeness to classes against plain sums, and what teaching does to it."""

import math

import pytest
import torch
from torch import Tensor

from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.method.centred import SHORTEST
from m2sd_cli.method.familiarity import DIAGONAL, build_familiarity, build_likeness, known_score_name, left_out_scores
from m2sd_cli.method.stage3 import KnownClasses

POWERS = (0.5, 0.25)  # of this version, and of a base session of another one


def known_classes(
    images: int = 8, classes: int = 3, shots: tuple[int, ...] = (2, 1), width: int = 4, power: float = 0.5
) -> KnownClasses:
    """Classes of random features."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(images)
    features = (torch.randn(len(labels), width, generator=generator) + 3 * labels[:, None].sin()).abs()
    sums = BaseSums(torch.full((classes,), images), width, power=power)
    sums.add(features, labels)
    new = [torch.rand(count, width, generator=generator) for count in shots]
    means = torch.stack([each.mean(dim=0) for each in new]) if new else torch.empty(0, width)
    return KnownClasses(sums.means.means(), means, new, sums.statistics(), [images] * classes)


def plain_likeness(known: KnownClasses, x: list[float], power: float) -> list[float]:
    """Minus the squared distance in units of the spread within classes, number by number."""
    statistics = known.statistics
    covariance = statistics.power_covariance.double()
    width = len(covariance)
    variance = sum(float(covariance[i, i]) for i in range(width)) / width
    inverse = torch.linalg.inv(covariance + DIAGONAL * variance * torch.eye(width, dtype=torch.float64)).tolist()

    def unit(vector: list[float]) -> list[float]:
        length = math.sqrt(sum(v * v for v in vector))
        return [v / length for v in vector]

    base = statistics.power_means.tolist()
    length = sum(math.sqrt(sum(v * v for v in mean)) for mean in base) / len(base)
    means = base + [[sum(v**power for v in column) / len(each) for column in each.T.tolist()] for each in known.shots]
    u = unit([v**power for v in x])
    found = []
    for mean in means:
        d = [a - b for a, b in zip(u, unit(mean), strict=True)]
        squared = sum(d[i] * inverse[i][j] * d[j] for i in range(width) for j in range(width))
        found.append(-squared * length**2 / width)
    return found


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shots", [(), (1,), (2, 1)])
def test_it_is_the_distance_to_each_mean(shots: tuple[int, ...], power: float) -> None:
    known = known_classes(shots=shots, power=power)
    familiarity = build_familiarity(known)
    images = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
    found = familiarity(images)
    assert found.shape == (5, 3 + len(shots))
    for row, image in zip(found, images, strict=True):
        assert row.tolist() == pytest.approx(plain_likeness(known, image.tolist(), power), rel=1e-3, abs=1e-4)


def plain_centred_likeness(known: KnownClasses, x: list[float], power: float) -> list[float]:
    """cos(z, z_c) - log|y| / 2 with gamma 3, number by number; products with the inverse take the place of W."""
    statistics = known.statistics
    covariance = statistics.power_covariance.double()
    width = len(covariance)
    variance = sum(float(covariance[i, i]) for i in range(width)) / width
    shrunk = covariance + 3 * variance * torch.eye(width, dtype=torch.float64)
    inverse: list[list[float]] = torch.linalg.inv(shrunk).tolist()

    def product(a: list[float], b: list[float]) -> float:
        return sum(a[i] * inverse[i][j] * b[j] for i in range(width) for j in range(width))

    def less(a: list[float], b: list[float]) -> list[float]:
        return [first - second for first, second in zip(a, b, strict=True)]

    def length(vector: list[float]) -> float:
        return math.sqrt(sum(v * v for v in vector))

    base = statistics.power_means.double().tolist()
    means = base + [[sum(v**power for v in column) / len(each) for column in each.T.tolist()] for each in known.shots]
    images = [*known.images, *map(len, known.shots)]
    centre = [sum(column) / len(base) for column in zip(*base, strict=True)]
    scale = sum(map(length, base)) / len(base)
    middle = [
        scale * sum(column) / len(base) for column in zip(*([v / length(m) for v in m] for m in base), strict=True)
    ]
    u = [v**power for v in x]
    y = less([scale * v / length(u) for v in u], middle)
    z = less(u, centre)
    noise = sum(float(covariance[i, j]) * inverse[j][i] for i in range(width) for j in range(width))
    found = []
    for mean, count in zip(means, images, strict=True):
        row = less(mean, centre)
        squared = product(row, row)
        shortened = math.sqrt(max(squared - noise / count, SHORTEST * squared))
        found.append(product(z, row) / math.sqrt(product(z, z)) / shortened - math.log(product(y, y)) / 4)
    return found


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shots", [(), (1,), (2, 1)])
def test_of_a_pretrained_network_it_is_the_direction_less_the_length(shots: tuple[int, ...], power: float) -> None:
    known = known_classes(shots=shots, power=power)
    likeness = build_likeness(known_score_name(trained=False), known)
    assert likeness is not None
    images = torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
    found = likeness(images)
    assert found.shape == (5, 3 + len(shots))
    for row, image in zip(found, images, strict=True):
        assert row.tolist() == pytest.approx(plain_centred_likeness(known, image.tolist(), power), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("score", ["distance", "centred-length", "centred"])
def test_no_image_becomes_unknown_by_what_is_learned_later(score: str, power: float) -> None:
    images = torch.rand(50, 4, generator=torch.Generator().manual_seed(2))
    later, before = (build_likeness(score, known_classes(shots=shots, power=power)) for shots in ((2, 1), ()))
    assert later is not None
    assert before is not None
    torch.testing.assert_close(later(images)[:, :3], before(images), rtol=1e-4, atol=1e-4)
    assert torch.equal(later.select(torch.arange(3))(images), before(images))
    assert bool((later(images).amax(dim=1) >= before(images).amax(dim=1) - 1e-5).all())


def test_a_shot_is_what_its_class_looks_like() -> None:
    known = known_classes()
    likeness = build_familiarity(known)(known.shots[1])
    assert float(likeness[0, 4]) == pytest.approx(0, abs=1e-5)
    assert int(likeness.argmax()) == 4


@pytest.mark.parametrize("score", ["distance", "centred-length"])
@pytest.mark.parametrize(("images", "classes"), [(1, 1), (1, 3), (5, 1)])
def test_few_images_make_numbers(images: int, classes: int, score: str) -> None:
    known = known_classes(images, classes)
    likeness = build_likeness(score, known)
    assert likeness is not None
    for features in (torch.rand(2, 4), torch.zeros(1, 4), known.base):
        found: Tensor = likeness(features)
        assert bool(found.isfinite().all())


@pytest.mark.parametrize("score", ["distance", "centred-length"])
def test_statistics_of_no_features_are_refused(score: str) -> None:
    known = known_classes()
    known.statistics.power_covariance.neg_()
    with pytest.raises(ValueError, match="not the covariance of any features"):
        build_likeness(score, known)


def test_the_own_class_is_left_out() -> None:
    likeness = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert left_out_scores(likeness, torch.tensor([0, 1])).tolist() == [2.0, 3.0]
