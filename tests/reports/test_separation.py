"""AUROC and FPR at 95 % TPR against counting every pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.reports.separation import Separation, SeparationFigures


def plain_auroc(known: list[float], unknown: list[float]) -> float:
    wins = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unknown]
    return 100 * sum(wins) / len(wins)


def plain_fpr95(known: list[float], unknown: list[float]) -> float:
    """At the highest threshold at which 95 % of the known images pass."""
    threshold = max(t for t in known if 100 * sum(k >= t for k in known) >= 95 * len(known))
    return 100 * sum(u >= threshold for u in unknown) / len(unknown)


def separated(scores: Tensor, known: Tensor, bins: int) -> SeparationFigures:
    counter = Separation(1, bins=bins)
    counter.add(scores[:, None], known[:, None])
    return counter.figures()[0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40))
def test_figures_are_exact_for_scores_on_the_bins(images: list[tuple[int, bool]]) -> None:
    scores, known = torch.tensor([n / 8 for n, _ in images]), torch.tensor([each for _, each in images])
    found = separated(scores, known, bins=9 * 8)
    positives = [n / 8 for n, each in images if each]
    negatives = [n / 8 for n, each in images if not each]
    assert (found.known, found.unknown) == (len(positives), len(negatives))
    if positives and negatives:
        assert found.auroc == pytest.approx(plain_auroc(positives, negatives), abs=1e-9)
        assert found.fpr95 == pytest.approx(plain_fpr95(positives, negatives), abs=1e-9)
    else:
        assert (found.auroc, found.auroc_error, found.fpr95) == (None, None, None)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 30), st.integers(0, 999))
def test_rounding_moves_auroc_by_no_more_than_is_said(images: int, bins: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(images, generator=generator, dtype=torch.float64)
    known = torch.rand(images, generator=generator) < 0.5
    known[:2] = torch.tensor([True, False])
    found = separated(scores, known, bins)
    assert found.auroc is not None
    assert found.auroc_error is not None
    positives, negatives = scores[known].tolist(), scores[~known].tolist()
    assert abs(found.auroc - plain_auroc(positives, negatives)) <= found.auroc_error + 1e-9
    rounded = [math.floor(score * bins) / bins for score in scores.tolist()]
    positives = [score for score, each in zip(rounded, known.tolist(), strict=True) if each]
    negatives = [score for score, each in zip(rounded, known.tolist(), strict=True) if not each]
    assert found.auroc == pytest.approx(plain_auroc(positives, negatives), abs=1e-9)
    assert found.fpr95 == pytest.approx(plain_fpr95(positives, negatives), abs=1e-9)


def test_95_of_100_known_images_are_enough() -> None:
    scores = torch.arange(100) / 100
    known = torch.ones(100, dtype=torch.bool)
    for unknown, expected in ((0.045, 0.0), (0.055, 100.0)):
        found = separated(torch.cat([scores, torch.tensor([unknown])]), torch.cat([known, ~known[:1]]), bins=200)
        assert found.fpr95 == expected


def test_sessions_are_counted_apart() -> None:
    counter = Separation(2, bins=10)
    counter.add(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[True, True], [False, False]]))
    first, second = counter.figures()
    assert (first.auroc, first.fpr95, first.auroc_error) == (100.0, 0.0, 0.0)
    assert (second.auroc, second.fpr95, second.auroc_error) == (0.0, 100.0, 0.0)


def test_the_ends_of_the_range_are_in_it() -> None:
    found = separated(torch.tensor([1.0, 1.5, 0.0, -0.5]), torch.tensor([True, True, False, False]), bins=4)
    assert (found.auroc, found.fpr95) == (100.0, 0.0)
