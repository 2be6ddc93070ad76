"""The centred classifier against its definition, and what it is for: few shots beside many images."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.method.centred import SHORTEST, build, centred_head, whitening
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses

WIDTH, BASE, NEW, SHOTS = 12, 4, 3, 5
POWERS = (0.5, 0.25)  # of this version, and of a base session of another one


def covariance(seed: int = 0) -> Tensor:
    factors = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factors @ factors.T / WIDTH


def clouds(classes: int, images: int, seed: int) -> Tensor:
    """Draw features (C, K, D) of classes that lie in one cone; within a class some features vary more than others."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.2, 2, WIDTH)
    centres = 4 + torch.randn(classes, 1, WIDTH, generator=generator)
    return centres + spread * torch.randn(classes, images, WIDTH, generator=generator)


def known(base: Tensor, new: Tensor, power: float = 0.5) -> KnownClasses:
    sums = BaseSums(torch.full((len(base),), base.shape[1]), WIDTH, projection=torch.ones(WIDTH, 2), power=power)
    for label, features in enumerate(base):
        sums.add(features, torch.full((len(features),), label))
    means = torch.cat([new.mean(dim=1), base.mean(dim=1)[:0]])
    return KnownClasses(sums.means.means(), means, list(new), sums.statistics(), [base.shape[1]] * len(base))


def test_whitening_makes_the_shrunk_covariance_the_identity() -> None:
    within = covariance()
    projection = whitening(within, diagonal=0.5)
    shrunk = within + 0.5 * within.diagonal().mean() * torch.eye(WIDTH)
    torch.testing.assert_close(projection.T @ shrunk @ projection, torch.eye(WIDTH, dtype=torch.float64))
    assert torch.equal(whitening(torch.zeros(3, 3)), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("damage", ["negative", "skewed"])
def test_what_is_no_covariance_is_refused(damage: str) -> None:
    within = covariance()
    if damage == "negative":
        within[0, 0] = -3 * within.diagonal().sum()
    else:
        within[0, 1] += 0.1
    with pytest.raises(ValueError, match="not the covariance of any features"):
        whitening(within)


def plain_logits(means: Tensor, images: Tensor, within: Tensor, u: Tensor) -> Tensor:
    """16 cos(z, z_c) for power-transformed features u, products with the inverse in place of W; all in float64."""
    shrunk = within + within.diagonal().mean() * torch.eye(WIDTH)
    precision = shrunk.inverse()
    centre = means[:BASE].mean(dim=0)
    u, m = u - centre, means - centre
    noise = (within @ precision).trace()
    squared = [row @ precision @ row for row in m]
    lengths = [each - noise / count for each, count in zip(squared, images, strict=True)]
    assert all(each > SHORTEST * whole for each, whole in zip(lengths, squared, strict=True))
    expected = [
        [
            16 * row @ precision @ mean / ((row @ precision @ row) * length).sqrt()
            for mean, length in zip(m, lengths, strict=True)
        ]
        for row in u
    ]
    return torch.tensor(expected, dtype=torch.float64)


@pytest.mark.parametrize("power", POWERS)
def test_logits_are_those_of_the_definition(power: float) -> None:
    generator = torch.Generator().manual_seed(3)
    means = torch.rand(BASE + NEW, WIDTH, generator=generator) + torch.eye(BASE + NEW, WIDTH)
    images, within = torch.tensor([9.0] * BASE + [2.0] * NEW), 0.01 * covariance()
    x = 4 * torch.rand(6, WIDTH, generator=generator)
    logits = centred_head(means, images, BASE, within, 16.0, power)(x)
    expected = plain_logits(means.double(), images, within, x.double() ** power)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("power", POWERS)
def test_a_head_of_known_classes_has_the_power_of_the_base_session(power: float) -> None:
    base, new, x = clouds(BASE, 50, seed=1), clouds(NEW, SHOTS, seed=2), clouds(1, 6, seed=3)[0]
    logits = build(known(base, new, power), "cosine", 16.0)(x)
    u, own, shots = (each.double().clamp_min(0) ** power for each in (x, base, new))
    within = sum((torch.cov(each.T, correction=0) for each in own), torch.zeros(WIDTH, WIDTH)) / BASE
    means = torch.cat([own.mean(dim=1), shots.mean(dim=1)])
    images = torch.tensor([50.0] * BASE + [float(SHOTS)] * NEW)
    torch.testing.assert_close(logits.double(), plain_logits(means, images, within, u), rtol=1e-3, atol=1e-3)


def test_a_row_that_is_mere_noise_keeps_a_length() -> None:
    means = torch.ones(3, WIDTH)
    means[1, 0] = 1.001
    head = centred_head(means, torch.ones(3), 2, covariance(), 1.0, 0.5)
    lengths = head.rows.norm(dim=1)
    assert head.rows.isfinite().all()
    torch.testing.assert_close(lengths, torch.full((3,), SHORTEST**-0.5))


def test_classes_without_any_spread_are_told_apart() -> None:
    base = clouds(BASE, 1, seed=1)
    head = build(known(base, base[:0]), "cosine", 16.0)
    assert head(base[:, 0]).argmax(dim=1).tolist() == list(range(BASE))
    assert head(base[:, 0]).isfinite().all()


def test_a_row_depends_on_the_base_session_and_on_its_own_shots() -> None:
    base = clouds(BASE, 50, seed=1)
    new = clouds(NEW, SHOTS, seed=2)
    whole = build(known(base, new), "cosine", 16.0).rows
    torch.testing.assert_close(build(known(base, new[:1]), "cosine", 16.0).rows, whole[: BASE + 1])
    torch.testing.assert_close(build(known(base, new.flip(0)), "cosine", 16.0).rows[BASE], whole[-1])


def test_views_of_a_shot_are_no_more_shots() -> None:
    base, new = clouds(BASE, 50, seed=1), clouds(NEW, 2, seed=2)
    whole = build(known(base, new), "cosine", 16.0).rows
    seen = known(base, new.repeat_interleave(4, dim=1))
    rows = build(replace(seen, views=[4] * NEW), "cosine", 16.0).rows
    torch.testing.assert_close(rows, whole)
    assert not torch.allclose(build(seen, "cosine", 16.0).rows, whole, rtol=0.01)


def test_it_answers_better_than_plain_means_in_a_narrow_cone() -> None:
    """Few shots of new classes beside many images of base classes, features far from the origin."""
    gained = []
    for seed in range(5):
        features = clouds(BASE + NEW, 100, seed=10 + seed)
        taught = known(features[:BASE, :50], features[BASE:, :SHOTS])
        x, labels = features[:, 50:].flatten(0, 1), torch.arange(BASE + NEW).repeat_interleave(50)
        plain = Head(torch.cat([taught.base, taught.new]))
        right = [(head(x).argmax(dim=1) == labels).double().mean() for head in (build(taught, "cosine", 1.0), plain)]
        gained.append(float(right[0] - right[1]))
    assert min(gained) > 0, gained


def test_few_shots_are_not_at_a_disadvantage() -> None:
    """On average an image has the same similarity to its class, whether that is known from 5 images or from 500."""
    spread, mean = 0.05 * torch.eye(WIDTH, dtype=torch.float64), torch.full((WIDTH,), 1.0)
    generator = torch.Generator().manual_seed(0)
    logits = {}
    for shots in (5, 500):
        draws = mean + spread[0, 0] ** 0.5 * torch.randn(2000, WIDTH, generator=generator) / shots**0.5
        base = torch.stack([torch.zeros(WIDTH), -mean + 1e-9])
        means = torch.cat([base, draws])
        head = centred_head(means, torch.full((len(means),), float(shots)), 2, spread, 1.0, 1.0)
        logits[shots] = float(head(mean[None].clamp_min(0))[0, 2:].mean())
    assert logits[5] == pytest.approx(logits[500], rel=0.02)
