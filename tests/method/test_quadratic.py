"""The quadratic classifier against distances in float64, class by class."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method import debiased, quadratic
from m2sd_cli.method.base_statistics import DIRECTIONS, BaseSums, HeldOut
from m2sd_cli.method.debiased import affordable_margin, separation
from m2sd_cli.method.feature_maps import QuadraticFeatures
from m2sd_cli.method.fecam import correlation, shrunk
from m2sd_cli.method.quadratic import DIAGONAL, PRIOR, TAU, borrowed, build
from m2sd_cli.method.stage3 import KnownClasses

WIDTH, SCALE = 5, 16.0


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def clouds(classes: int, images: int, width: int, seed: int) -> Tensor:
    """Draw features (C, K, D) of classes, each of which varies in ways of its own."""
    centres, ways = 2 + 2 * draw(classes, 1, width, seed=seed), draw(classes, width, width, seed=seed + 1)
    return centres + (draw(classes, images, width, seed=seed + 2) - 0.5) @ (ways - 0.5)


def known(
    base: Tensor | list[Tensor],
    shots: list[Tensor],
    held_out: HeldOut | None = None,
    base_cost: float | None = None,
    power: float = 0.5,
) -> KnownClasses:
    images, width = [len(each) for each in base], base[0].shape[1]
    sums = BaseSums(torch.tensor(images), width, projection=torch.ones(width, 2), power=power)
    for label, features in enumerate(base):
        sums.add(features, torch.full((len(features),), label))
    means = sums.means.means()
    new = torch.cat([means[:0], *(each.mean(dim=0, keepdim=True) for each in shots)])
    return KnownClasses(means, new, shots, sums.statistics(), images, held_out, base_cost)


def root(matrix: Tensor, power: float) -> Tensor:
    """A symmetric power of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = vectors * values.clamp_min(1e-30) ** power @ vectors.T
    return found


def plain_logits(base: Tensor | list[Tensor], shots: list[Tensor], x: Tensor, power: float) -> Tensor:
    """-S/2 (u - m_c)^T Z N_c^-1 Z (u - m_c) + S/2 u^T Z Z u, Z = R^-1/2, without margin; roots are symmetric.

    Of a wide feature the covariances of classes differ in the directions alone in which features vary most.
    """
    base, x = [each.double().clamp_min(0) ** power for each in base], x.double() ** power
    width = x.shape[1]
    own = [torch.cov(each.T, correction=0).view(width, width) for each in base]
    shared = sum(own[1:], own[0]) / len(own)
    widest = torch.linalg.eigh(shared).eigenvectors[:, -DIRECTIONS:]
    onto = widest @ widest.T
    z = root(correlation(shrunk(shared)), -0.5)
    spread = torch.linalg.qr(z @ widest).Q
    inside = spread @ spread.T  # a projection; the identity where the width is small
    seen = inside @ z @ shared @ z @ inside
    metric = seen + DIAGONAL * seen.trace() / min(width, DIRECTIONS) * inside
    values, vectors = torch.linalg.eigh(metric)
    kept = values > 1e-9 * values[-1]
    e = vectors[:, kept] * values[kept] ** -0.5 @ vectors[:, kept].T
    shares = [len(each) / (len(each) + PRIOR) for each in base]
    relative = [
        inside + share * e @ z @ onto @ (each - shared) @ onto @ z @ e for share, each in zip(shares, own, strict=True)
    ]
    means = [each.mean(dim=0) for each in base]
    for each in shots:
        mean = (each.double().clamp_min(0) ** power).mean(dim=0)
        weights = [float((TAU * torch.cosine_similarity(mean, other, dim=0)).exp()) for other in means[: len(base)]]
        mixed = sum((weight * n for weight, n in zip(weights, relative, strict=False)), torch.zeros_like(inside))
        relative.append(mixed / sum(weights))
        means.append(mean)
    found = torch.zeros(len(x), len(means), dtype=torch.float64)
    outside = torch.eye(width, dtype=torch.float64) - inside
    for c, (mean, n) in enumerate(zip(means, relative, strict=True)):
        size = n.trace() / min(width, DIRECTIONS)
        inverse = torch.linalg.inv(n / size + outside)  # outside it is the shared one
        for i, row in enumerate(x):
            u = row / row.norm()
            away = z @ (u - mean / mean.norm())
            found[i, c] = SCALE / 2 * ((z @ u) @ (z @ u) - away @ inverse @ away)
    return found


@pytest.mark.parametrize(
    ("classes", "new", "width", "images", "power"),
    [(4, 3, 5, 30, 0.5), (4, 3, 5, 200, 0.25), (3, 1, 1, 9, 0.5), (1, 0, 4, 9, 0.5), (2, 2, 70, 200, 0.5)],
)
def test_logits_are_distances_less_what_all_classes_share(
    classes: int, new: int, width: int, images: int, power: float
) -> None:
    base = clouds(classes, images, width, seed=3)
    shots = [clouds(1, 1 + number, width, seed=20 + number)[0] for number in range(new)]
    x = 1 + 3 * draw(7, width, seed=9)
    chain = known(base, shots, power=power)
    head = build(chain, "cosine", SCALE)
    margin = debiased.SHARE * SCALE * separation((base.double().clamp_min(0) ** power).mean(dim=1))
    expected = plain_logits(base, shots, x, power)
    expected[:, :classes] -= margin
    torch.testing.assert_close(head(x).double(), expected, rtol=1e-5, atol=1e-4)
    if classes > 1 and width > 1:
        plain = debiased.build(chain, "cosine", SCALE)(x)
        assert (head(x) - plain).abs().max() > 0.015  # so that the comparison means something


def test_a_class_of_many_images_has_more_of_a_covariance_of_its_own() -> None:
    base = [each[:images] for each, images in zip(clouds(4, 40, WIDTH, seed=3), (40, 9, 2, 1), strict=True)]
    shots = [clouds(1, 2, WIDTH, seed=20)[0]]
    x = 1 + 3 * draw(7, WIDTH, seed=9)
    means = torch.stack([each.double().sqrt().mean(dim=0) for each in base])
    expected = plain_logits(base, shots, x, 0.5)
    expected[:, :4] -= debiased.SHARE * SCALE * separation(means)
    found = build(known(base, shots), "cosine", SCALE)(x).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("classes", "images"), [(1, 20), (4, 1)])
def test_one_class_and_one_image_a_class_have_no_covariance_of_their_own(classes: int, images: int) -> None:
    chain = known(clouds(classes, images, WIDTH, seed=1), [draw(1, WIDTH) + 1])
    x = draw(8, WIDTH, seed=2)
    found, plain = (each.build(chain, "cosine", SCALE)(x) for each in (debiased, quadratic))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


def test_later_shots_of_base_classes_are_not_in_their_covariances() -> None:
    chain = known(clouds(4, 20, WIDTH, seed=6), [1 + draw(2, WIDTH, seed=3)])
    x = 1 + draw(6, WIDTH, seed=7)
    logits = build(chain, "cosine", SCALE)(x)
    more = replace(chain, images=[5000] * 4)
    assert torch.equal(build(replace(more, covariance_images=[20] * 4), "cosine", SCALE)(x), logits)
    assert not torch.allclose(build(more, "cosine", SCALE)(x), logits, atol=0.015)


def test_the_margin_is_measured_by_its_own_logits() -> None:
    base = clouds(3, 40, WIDTH, seed=5)
    held = HeldOut(base[:, :10].flatten(0, 1), torch.arange(3).repeat_interleave(10))
    x, shots = draw(6, WIDTH, seed=4) + 1, [draw(2, WIDTH, seed=8) + 1]
    free, held_back = (build(known(base, shots, held, cost), "cosine", SCALE) for cost in (0.0, 20.0))
    margin = affordable_margin(free(held.features)[:, :3], held.labels, 20.0)
    assert margin > 0
    torch.testing.assert_close(free(x)[:, :3] - held_back(x)[:, :3], torch.full((6, 3), margin), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(free(x)[:, 3:], held_back(x)[:, 3:])


def test_no_new_class_changes_the_logit_of_another() -> None:
    base, shots = clouds(4, 20, WIDTH, seed=6), [1 + draw(2, WIDTH, seed=seed) for seed in range(3)]
    x = 1 + draw(6, WIDTH, seed=7)
    together = build(known(base, shots), "cosine", SCALE)(x)
    alone = build(known(base, shots[1:2]), "cosine", SCALE)(x)
    torch.testing.assert_close(alone, together[:, [0, 1, 2, 3, 5]], rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 4))
def test_what_is_borrowed_lies_between_the_classes_it_comes_from(seed: int, classes: int, new: int) -> None:
    own = draw(classes, 3, 3, seed=seed).double()
    found = borrowed(own, draw(classes, WIDTH, seed=seed + 1), draw(new, WIDTH, seed=seed + 2))
    assert (found <= own.amax(dim=0) + 1e-12).all()
    assert (found >= own.amin(dim=0) - 1e-12).all()


def test_a_new_class_borrows_most_of_the_class_that_it_resembles() -> None:
    own = torch.stack([torch.eye(2), 3 * torch.eye(2)]).double()
    found = borrowed(own, torch.eye(2), torch.tensor([[0.1, 0.9]]))
    torch.testing.assert_close(found[0], own[1], rtol=1e-6, atol=1e-6)


def test_the_features_are_those_of_fecam_and_products() -> None:
    x, directions = draw(3, 4), draw(4, 2, seed=1)
    u = x.sqrt() / x.sqrt().norm(dim=1, keepdim=True)
    a, b = (u @ directions).T
    expected = torch.cat([u, torch.stack([a * a, a * b, b * b], dim=1)], dim=1)
    torch.testing.assert_close(QuadraticFeatures(0.5, directions)(x), expected)


def test_statistics_of_no_features_are_refused() -> None:
    chain = known(clouds(3, 20, WIDTH, seed=1), [])
    statistics = chain.statistics
    assert statistics.class_covariances is not None
    statistics.class_covariances[0].sub_(1e3 * torch.eye(WIDTH))
    with pytest.raises(ValueError, match="not the covariances of any features"):
        build(chain, "cosine", SCALE)
