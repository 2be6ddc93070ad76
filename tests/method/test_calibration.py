"""The fitted temperature against a fine grid, and the threshold against counting."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.calibration import (
    HIGHEST,
    LOWEST,
    Confidence,
    fit_confidence,
    fit_temperature,
    known_score,
    unknown_threshold,
)


def plain_loss(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """The cross-entropy with targets that are not quite sure, image by image and class by class."""
    total, unsure = 0.0, 1 / (len(labels) + 2)
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        top = max(row)
        partition = math.log(sum(math.exp((z - top) / temperature) for z in row))
        for number, z in enumerate(row):
            others = unsure / (len(row) - 1) if len(row) > 1 else 0.0
            own = 1 - others * (len(row) - 1)
            total += (own if number == label else others) * (partition - (z - top) / temperature)
    return total / len(labels)


def draw(images: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(images, classes, generator=generator)
    labels = (logits + 6 * torch.randn(images, classes, generator=generator)).argmax(dim=1)
    return logits, labels


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 999))
def test_no_other_temperature_is_better(images: int, classes: int, seed: int) -> None:
    logits, labels = draw(images, classes, seed)
    temperature = fit_temperature(logits, labels)
    wide = logits.double()
    unit = (wide - wide.gather(1, labels[:, None])).square().mean().sqrt().item() or 1.0
    rounding = 1e-12
    assert LOWEST * (1 - rounding) <= temperature / unit <= HIGHEST * (1 + rounding)
    best = plain_loss(logits, labels, temperature)
    for step in range(41):
        other = unit * LOWEST * (HIGHEST / LOWEST) ** (step / 40)
        assert best <= plain_loss(logits, labels, other) + 1e-9
    if LOWEST * (1 + rounding) < temperature / unit < HIGHEST * (1 - rounding) and classes > 1:
        for near in (temperature * 1.01, temperature / 1.01):
            assert best <= plain_loss(logits, labels, near)


def test_the_temperature_of_the_labels_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(dim=1), 1, generator=generator).squeeze(1)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.03)
    for scale in (3, 1e-4, 1e4):  # as large as the logits of a linear classifier may be
        assert fit_temperature(scale * logits, labels) == pytest.approx(scale * temperature, rel=1e-5)
    assert fit_temperature(logits + 100 * torch.randn(20_000, 1), labels) == pytest.approx(temperature, rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[3.0, 0.0], [0.0, 2.0]], [1, 0], HIGHEST * 3.25**0.5),  # all wrong
        ([[3.0, 0.0]], [1], HIGHEST * 4.5**0.5),
        ([[3.0], [1.0]], [0, 0], 1.0),  # one class
        ([[2.0, 2.0, 2.0]], [1], 1.0),
    ],
)
def test_a_loss_without_a_lowest_point_ends_at_a_bound(
    logits: list[list[float]], labels: list[int], expected: float
) -> None:
    assert fit_temperature(torch.tensor(logits), torch.tensor(labels)) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "images"), [(1, 1), (2, 3), (4, 4), (60, 61)])
def test_right_answers_are_counted_by_the_rule_of_succession(right: int, images: int) -> None:
    labels = torch.tensor([0] * right + [1] * (images - right))
    temperature = fit_temperature(torch.tensor([[1.0, 0.0]] * images), labels)
    probability = float((torch.tensor([1.0, 0.0], dtype=torch.float64) / temperature).softmax(dim=0)[0])
    assert probability == pytest.approx((right + 1) / (images + 2), rel=1e-6)


def test_confidence_is_what_was_fitted() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(400, 5, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(dim=1), 1, generator=generator).squeeze(1)
    confidence = fit_confidence(logits, labels, 2 * logits)
    assert confidence.temperature == fit_temperature(logits, labels)
    scores = [2 * max(row) for row in logits.tolist()]
    assert confidence.unknown_below in [pytest.approx(score) for score in scores]
    assert sum(not confidence.is_unknown(score) for score in known_score(2.0 * logits.double()).tolist()) == 380
    assert confidence.calibrated


def test_how_well_the_score_tells_is_estimated_by_leaving_each_class_out() -> None:
    likeness = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, 0.5], [0.4, 0.3, 0.2]])
    labels = torch.tensor([0, 1, 2])
    found = fit_confidence(likeness, labels, likeness)
    known, unknown = [0.9, 0.8, 0.4], [0.2, 0.5, 0.4]
    pairs = [(k > u) + (k == u) / 2 for k in known for u in unknown]
    assert found.told == pytest.approx(100 * sum(pairs) / 9, rel=1e-5)
    assert not found.tells_little
    assert fit_confidence(likeness, labels, torch.zeros(3, 3)).tells_little
    assert fit_confidence(likeness[:, :1], 0 * labels, likeness[:, :1]).told is None  # of one class
    with pytest.raises(ValueError, match="finite numbers"):
        fit_confidence(likeness, labels, likeness / 0)


def test_without_images_nothing_is_fitted() -> None:
    plain = Confidence()
    assert not plain.calibrated
    assert not plain.is_unknown(-1e9)
    assert torch.equal(plain.tempered(torch.tensor([[3.0, 1.0]])), torch.tensor([[3.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("logit", [0.0, -4.0, 1e38, 1e-38])
def test_one_image_has_a_score_that_others_can_differ_from(logit: float) -> None:
    logits = torch.tensor([[logit, logit]])
    confidence = fit_confidence(logits, torch.tensor([1]), logits)
    assert not confidence.is_unknown(logit)
    assert confidence.is_unknown(logit - abs(logit) / 8 - 1e-30)


def test_nothing_to_fit_to_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(torch.tensor([[1.0, -math.inf]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="at least one image"):
        unknown_threshold(torch.zeros(0))
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="not above 0"):
            unknown_threshold(torch.ones(2), share)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.sampled_from([0.05, 0.5, 0.55, 0.9, 0.95, 1.0]))
def test_the_threshold_is_the_highest_that_keeps_enough(scores: list[int], tpr: float) -> None:
    threshold = unknown_threshold(torch.tensor(scores, dtype=torch.float32), tpr)

    def share(threshold: float) -> float:
        return sum(score >= threshold for score in scores) / len(scores)

    assert threshold in scores
    assert share(threshold) >= tpr
    higher = [score for score in scores if score > threshold]
    assert not higher or share(min(higher)) < tpr


def test_a_product_that_rounds_up_asks_for_no_image_too_many() -> None:
    assert 0.07 * 100 > 7
    assert unknown_threshold(torch.arange(100.0), 0.07) == 93.0  # 7 of 100 are not below it
