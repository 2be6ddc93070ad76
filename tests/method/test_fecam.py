"""FeCAM against loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.method.feature_maps import PowerFeatures, power_transform
from m2sd_cli.method.fecam import DIAGONAL, OFF_DIAGONAL, build, correlation, fecam_head, shrunk
from m2sd_cli.method.stage3 import KnownClasses


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance_of(width: int, seed: int = 0, images: int = 40) -> Tensor:
    x = draw(images, width, seed=seed) @ draw(width, width, seed=seed + 1)
    return x.T @ x / images


def plain_shrunk(covariance: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    width = len(covariance)
    entries = covariance.tolist()
    variance = sum(entries[i][i] for i in range(width)) / width
    others = [entries[i][j] for i in range(width) for j in range(width) if i != j]
    between = sum(others) / len(others) if others else 0.0
    return torch.tensor(
        [
            [entries[i][j] + (diagonal * variance if i == j else off_diagonal * between) for j in range(width)]
            for i in range(width)
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("power", [0.5, 1.0, 0.25])
def test_the_power_transform_is_the_formula(power: float) -> None:
    x = torch.tensor([[4.0, 0.0, -9.0, 2.0]])
    expected = torch.tensor([[4.0**power, 0.0, 0.0, 2.0**power]])
    torch.testing.assert_close(power_transform(x, power), expected)
    torch.testing.assert_close(PowerFeatures(power)(x), expected / math.sqrt(4 ** (2 * power) + 2 ** (2 * power)))


@pytest.mark.parametrize("power", [0.0, -0.5, 1.5, math.nan])
def test_a_power_that_makes_features_more_skewed_is_refused(power: float) -> None:
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        PowerFeatures(power)


def test_a_zero_vector_stays_one() -> None:
    assert torch.equal(PowerFeatures(0.5)(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize(("diagonal", "off_diagonal"), [(1.0, 1.0), (10.0, 0.0), (0.5, 100.0)])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_shrinking_is_the_formula(width: int, diagonal: float, off_diagonal: float) -> None:
    covariance = covariance_of(width)
    result = shrunk(covariance, diagonal, off_diagonal)
    torch.testing.assert_close(result, plain_shrunk(covariance, diagonal, off_diagonal))


def test_correlation_is_the_formula_and_knows_features_without_variance() -> None:
    covariance = covariance_of(4)
    covariance[2] = covariance[:, 2] = 0
    correlations = correlation(covariance)
    assert torch.equal(correlations.diagonal(), torch.ones(4, dtype=torch.float64))
    assert torch.equal(correlations[2], torch.tensor([0, 0, 1, 0], dtype=torch.float64))
    for i, j in ((0, 1), (3, 0)):
        expected = covariance[i, j] / math.sqrt(covariance[i, i] * covariance[j, j])
        assert correlations[i, j].item() == pytest.approx(expected.item())


@settings(max_examples=50)
@given(st.integers(0, 999), st.integers(1, 6), st.floats(0, 100), st.floats(0, 1), st.floats(1e-3, 1e3))
def test_a_correlation_has_no_scale_and_is_bounded(
    seed: int, width: int, diagonal: float, share: float, scale: float
) -> None:
    covariance = covariance_of(width, seed)
    correlations = correlation(shrunk(covariance, diagonal, share * diagonal))
    assert float(correlations.abs().amax()) <= 1 + 1e-9
    torch.testing.assert_close(correlation(shrunk(scale * covariance, diagonal, share * diagonal)), correlations)


def plain_logits(u: Tensor, means: Tensor, covariance: Tensor, diagonal: float, off_diagonal: float) -> Tensor:
    """-8 (u - m_c)^T R^-1 (u - m_c) + 8 u^T R^-1 u, with u and m_c brought to unit length."""
    inverse = torch.linalg.inv(correlation(plain_shrunk(covariance, diagonal, off_diagonal)))
    expected = torch.zeros(len(u), len(means), dtype=torch.float64)
    for i, vector in enumerate(u):
        unit = vector / vector.norm()
        for c, mean in enumerate(means):
            away = unit - mean / mean.norm()
            expected[i, c] = -8 * away @ inverse @ away + 8 * unit @ inverse @ unit
    return expected


@pytest.mark.parametrize("power", [0.5, 0.25])
@pytest.mark.parametrize(("classes", "width"), [(5, 4), (1, 3), (2, 1)])
def test_the_logits_are_distances_less_what_all_classes_share(classes: int, width: int, power: float) -> None:
    means, x = draw(classes, width).abs(), draw(9, width, seed=1).abs()
    covariance = covariance_of(width, seed=2)
    head = fecam_head(means.float(), covariance.float(), 16.0, power=power, diagonal=2.0, off_diagonal=0.5)
    expected = plain_logits(x**power, means, covariance, 2.0, 0.5)
    torch.testing.assert_close(head(x.float()).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("power", [0.5, 0.25])  # of this version, and of a base session of another one
def test_a_head_of_known_classes_has_the_power_of_the_base_session(power: float) -> None:
    x, base, shots = draw(9, 4).abs(), 1 + draw(3, 30, 4, seed=1).abs(), draw(2, 5, 4, seed=2).abs()
    sums = BaseSums(torch.full((3,), 30), 4, projection=torch.ones(4, 2), power=power)
    sums.add(base.flatten(0, 1).float(), torch.arange(3).repeat_interleave(30))
    new = [each.float() for each in shots]
    known = KnownClasses(sums.means.means(), shots.mean(dim=1).float(), new, sums.statistics(), [30] * 3)
    within = sum((torch.cov(each.T, correction=0) for each in base**power), torch.zeros(4, 4)) / 3
    means = torch.cat([(base**power).mean(dim=1), (shots**power).mean(dim=1)])
    expected = plain_logits(x**power, means, within, DIAGONAL, OFF_DIAGONAL)
    torch.testing.assert_close(build(known, "cosine", 16.0)(x.float()).double(), expected, rtol=1e-3, atol=1e-3)


def test_a_base_of_one_image_a_class_has_no_covariance_and_still_answers() -> None:
    means = draw(3, 4).abs().float()
    logits = fecam_head(means, torch.zeros(4, 4), 16.0)(means.square())
    assert logits.isfinite().all()
    assert logits.argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("classes", "width"), [(60, 64), (5, 512)])
def test_statistics_of_one_image_a_class_have_no_covariance(classes: int, width: int) -> None:
    x = draw(classes, width).abs().float()
    sums = BaseSums(torch.ones(classes, dtype=torch.int64), width, projection=draw(width, 8).float())
    sums.add(x, torch.arange(classes))
    statistics = sums.statistics()
    assert not statistics.power_covariance.any()
    head = fecam_head(statistics.power_means, statistics.power_covariance, 16.0)
    assert (head(x).argmax(dim=1) == torch.arange(classes)).all()
    assert float(head.rows.abs().max()) < 16.1


@pytest.mark.parametrize("wrong", [torch.eye(4) + torch.ones(4, 4).triu(1), 2 * torch.ones(4, 4) - torch.eye(4)])
def test_what_is_no_covariance_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="not the covariance of any features"):
        fecam_head(draw(3, 4).abs().float(), wrong.float(), 16.0)
