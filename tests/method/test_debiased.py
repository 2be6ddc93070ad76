"""Calibrated stacking on FeCAM's logits against loops."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method import debiased, fecam
from m2sd_cli.method.base_statistics import BaseSums, HeldOut
from m2sd_cli.method.debiased import SHARE, affordable_margin, build, separation
from m2sd_cli.method.fecam import fecam_head
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def plain_separation(means: Tensor) -> float:
    rows = means.double()
    away = [
        1 - torch.cosine_similarity(rows[b], rows[c], dim=0).item()
        for b in range(len(rows))
        for c in range(len(rows))
        if b != c
    ]
    return sum(away) / len(away) if away else 0.0


@pytest.mark.parametrize(("classes", "width"), [(1, 4), (2, 1), (5, 3), (60, 64)])
def test_separation_is_the_mean_over_pairs(classes: int, width: int) -> None:
    means = draw(classes, width) - 0.3
    assert separation(means) == pytest.approx(plain_separation(means), abs=1e-9)


def test_a_zero_mean_is_at_a_right_angle_to_all() -> None:
    assert separation(torch.tensor([[0.0, 0.0], [2.0, 0.0], [3.0, 0.0]])) == pytest.approx((1 + 1 + 0) / 3)


@given(st.integers(0, 99), st.integers(2, 9), st.floats(0.01, 100))
def test_separation_has_no_scale_and_is_bounded(seed: int, classes: int, scale: float) -> None:
    means = draw(classes, 4, seed=seed) - 0.5
    assert 0 <= separation(means) <= 2
    assert separation(scale * means) == pytest.approx(separation(means), abs=1e-5)


def test_base_classes_lose_a_share_of_their_separation() -> None:
    known, x = known_classes(None), draw(7, 6, seed=2)
    biased, plain = (each.build(known, "cosine", 16.0)(x) for each in (debiased, fecam))
    torch.testing.assert_close(biased[:, 3:], plain[:, 3:])
    lost = 16 * SHARE * plain_separation(known.statistics.power_means)
    assert lost > 0.01
    torch.testing.assert_close(biased[:, :3], plain[:, :3] - lost)


def test_a_base_without_new_classes_answers_as_it_would_anyway() -> None:
    known, x = known_classes(None), draw(7, 6, seed=2)
    alone = replace(known, new=known.new[:0], shots=[])
    biased, plain = (each.build(alone, "cosine", 16.0)(x) for each in (debiased, fecam))
    torch.testing.assert_close(biased.softmax(dim=1), plain.softmax(dim=1))
    assert not torch.allclose(biased, plain)


def test_less_takes_from_a_head_without_bias_too() -> None:
    rows, x = draw(3, 5), draw(7, 5, seed=2)
    amounts = torch.tensor([0.5, 0.0, -1.0])
    torch.testing.assert_close(Head(rows).less(amounts)(x), Head(rows)(x) - amounts)


def plain_taken(logits: list[list[float]], labels: list[int], margin: float) -> int:
    """Count the images that a class with the margin takes from the others, over all classes that may have it."""
    classes = len(logits[0])
    taken = 0
    for holder in range(classes):
        for row, label in zip(logits, labels, strict=True):
            if label == holder or max(range(classes), key=row.__getitem__) != label:
                continue
            taken += row[label] - row[holder] < margin
    return taken


@given(st.integers(0, 999), st.integers(1, 30), st.integers(2, 6), st.floats(0, 100))
def test_the_margin_is_the_largest_that_costs_no_more(seed: int, images: int, classes: int, cost: float) -> None:
    """One more pair, which the margin may cost, has its place among those that were seen."""
    logits, labels = draw(images, classes, seed=seed).double(), torch.arange(images) % classes
    margin = affordable_margin(logits, labels, cost)
    rows: list[list[float]] = logits.tolist()
    pairs = images * (classes - 1) + 1
    if margin:
        assert 100 * (1 + plain_taken(rows, labels.tolist(), margin)) / pairs <= cost + 1e-6
    right = [(row, label) for row, label in zip(rows, labels.tolist(), strict=True) if max(row) == row[label]]
    leads = sorted(row[label] - row[other] for row, label in right for other in range(classes) if other != label)
    if margin < max(leads, default=0.0):  # beyond the largest lead nothing more is taken
        larger = min(lead for lead in leads if lead > margin)
        assert 100 * (1 + plain_taken(rows, labels.tolist(), larger)) / pairs > cost - 1e-6


def test_few_images_allow_no_margin_although_they_show_no_cost() -> None:
    logits, labels = 9 * torch.eye(3).repeat(11, 1), torch.arange(3).repeat(11)
    assert affordable_margin(logits, labels, 1.0) == 0.0  # of 66 pairs and the one to come
    assert affordable_margin(logits, labels, 1.5) == 9.0


@pytest.mark.parametrize(
    ("logits", "labels"), [([[1.0], [2.0]], [0, 0]), ([[1.0, 2.0, 3.0]], [0]), ([[0.0, 0.0]], [1])]
)
def test_nothing_can_be_lost_by_one_class_nor_where_all_is_wrong(logits: list[list[float]], labels: list[int]) -> None:
    assert affordable_margin(torch.tensor(logits), torch.tensor(labels), 5.0) == 0.0


def known_classes(base_cost: float | None, held_out: bool = True) -> KnownClasses:
    """Three base classes of features with noise, with twenty held-out images each, and one new class of two shots."""
    centres = 2 * draw(4, 6, seed=9)

    def some(images: int, seed: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(3).repeat_interleave(images)
        return centres[labels] + draw(len(labels), 6, seed=seed), labels

    sums = BaseSums(torch.tensor([30] * 3), 6)
    sums.add(*some(30, 1))
    means, shots = sums.means.means(), centres[3:] + draw(2, 6, seed=3)
    held = HeldOut(*some(20, 2)) if held_out else None
    return KnownClasses(means, shots.mean(0, keepdim=True), [shots], sums.statistics(), [30] * 3, held, base_cost)


@pytest.mark.parametrize("cost", [0.0, 0.5, 5.0])
def test_the_margin_is_measured_on_held_out_images(cost: float) -> None:
    known, x = known_classes(cost), draw(9, 6, seed=4)
    assert known.held_out is not None
    features, labels = known.held_out
    plain = fecam_head(
        torch.cat([known.statistics.power_means, known.power_means()]), known.statistics.power_covariance, 16.0
    )
    margins = (plain(x) - build(known, "cosine", 16.0)(x)).T
    torch.testing.assert_close(margins[3:], torch.zeros(1, 9))
    wanted = affordable_margin(plain(features)[:, :3], labels, cost)
    torch.testing.assert_close(margins[:3], torch.full((3, 9), wanted))


@pytest.mark.parametrize(("cost", "held_out"), [(None, True), (0.5, False)])
def test_the_margin_is_a_share_where_nothing_measures_it(cost: float | None, held_out: bool) -> None:
    known, x = known_classes(cost, held_out), draw(9, 6, seed=4)
    fixed = build(known_classes(None, held_out=False), "cosine", 16.0)
    torch.testing.assert_close(build(known, "cosine", 16.0)(x), fixed(x))
    assert not torch.allclose(build(known_classes(0.5), "cosine", 16.0)(x), fixed(x))


def test_no_new_class_changes_the_margin() -> None:
    known, x = known_classes(1.0), draw(9, 6, seed=4)
    alone = KnownClasses(known.base, known.new[:0], [], known.statistics, known.images, known.held_out, 1.0)
    torch.testing.assert_close(build(alone, "cosine", 16.0)(x), build(known, "cosine", 16.0)(x)[:, :3])
