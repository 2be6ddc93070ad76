"""Calibration of every session against loops over images, sessions and classes."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from m2sd_cli.method.calibration import Confidence, known_score
from m2sd_cli.reports.calibration import Calibration, Reliability, SessionCalibration, bounded
from m2sd_cli.reports.separation import BINS
from tests.reports.test_metrics import answer
from tests.reports.test_separation import plain_auroc, plain_fpr95

SIZES = (3, 5, 7)
FITTED = Confidence(temperature=1.5, unknown_below=0.0, mean=2.5, deviation=0.75)


def draw(images: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(-1, classes, (images,), generator=generator)


def counted(sizes: tuple[int, ...], logits: Tensor, labels: Tensor, batch: int = 10**6) -> Calibration:
    calibration = Calibration(sizes, FITTED)
    for start in range(0, len(labels), batch):
        calibration.add(logits[start : start + batch], labels[start : start + batch])
    return calibration


def plain_probability(row: list[float], size: int, temperature: float) -> float:
    """Of the best of the first classes."""
    best = max(row[:size])
    return 1 / sum(math.exp((z - best) / temperature) for z in row[:size])


def plain_bounded(score: float) -> float:
    x = (score - 2.5) / 0.75
    return 0.5 + x / (4 + 2 * abs(x))


def plain_ece(probabilities: list[float], right: list[bool]) -> float | None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for each in zip(probabilities, right, strict=True):
        bins.setdefault(max(1, math.ceil(15 * each[0])), []).append(each)
    gaps = [abs(sum(hit for _, hit in held) - sum(p for p, _ in held)) for held in bins.values()]
    return 100 * sum(gaps) / len(right) if right else None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=0, max_size=4), st.integers(1, 4), st.integers(0, 40), st.integers(0, 999))
def test_every_session_is_as_the_loop_says(steps: list[int], base: int, images: int, seed: int) -> None:
    sizes = tuple(base + sum(steps[:b]) for b in range(len(steps) + 1))
    logits, labels = draw(images, sizes[-1], seed)
    rows, truths = logits.tolist(), labels.tolist()
    found = counted(sizes, logits, labels).figures()
    assert [each.session for each in found] == list(range(len(sizes)))
    for size, each in zip(sizes, found, strict=True):
        probabilities = [plain_probability(row, size, 1.5) for row in rows]
        known = [0 <= label < size for label in truths]
        right = [answer(row, size) == label for row, label in zip(rows, truths, strict=True)]
        ours = [n for n in range(images) if known[n]]
        ece = plain_ece([probabilities[n] for n in ours], [right[n] for n in ours])
        assert each.ece == (None if ece is None else pytest.approx(ece, abs=1e-6))
        tempered = [max(row[:size]) / 1.5 for row in rows]
        assert known_score(FITTED.tempered(logits[:, :size])).tolist() == pytest.approx(tempered)
        scores = [math.floor(plain_bounded(score) * BINS * (1 + 1e-13)) / BINS for score in tempered]
        positives = [scores[n] for n in ours]
        negatives = [scores[n] for n in range(images) if not known[n]]
        assert (each.separation.known, each.separation.unknown) == (len(positives), len(negatives))
        if positives and negatives:
            assert each.separation.auroc == pytest.approx(plain_auroc(positives, negatives), abs=1e-9)
            assert each.separation.fpr95 == pytest.approx(plain_fpr95(positives, negatives), abs=1e-9)
        else:
            assert each.separation.auroc is None


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(0, 999))
def test_batches_change_no_digit(batch: int, seed: int) -> None:
    logits, labels = draw(50, 7, seed)
    assert counted(SIZES, logits.float(), labels, batch).figures() == counted(SIZES, logits.float(), labels).figures()


@pytest.mark.parametrize("cut", [0, 1, 13, 40])
def test_what_two_counted_apart_is_what_one_counts(cut: int) -> None:
    logits, labels = draw(40, 7)
    whole = counted(SIZES, logits, labels)
    here, there = counted(SIZES, logits[:cut], labels[:cut]), counted(SIZES, logits[cut:], labels[cut:])
    sent: list[Tensor] = []

    def send(numbers: Tensor) -> Tensor:
        assert numbers.ndim == 1
        sent.append(numbers)
        return numbers

    there.join(send)
    arriving = iter(sent)
    here.join(lambda numbers: torch.cat([numbers, next(arriving)]))
    assert here.figures() == whole.figures()


def test_a_bin_has_its_upper_end() -> None:
    """Of 15 bins the third is (2/15, 3/15]: 0.2 and a little less share a bin, a little more has the next one."""
    for other, expected in ((0.19, abs(0.2 + 0.19 - 1) / 2), (0.21, (0.8 + 0.21) / 2)):
        reliability = Reliability(1)
        reliability.add(
            torch.tensor([[0.2], [other]], dtype=torch.float64),
            torch.tensor([[True], [False]]),
            torch.ones(2, 1, dtype=torch.bool),
        )
        assert reliability.errors()[0] == pytest.approx(100 * expected, abs=1e-5)


def test_half_of_the_answers_right_at_a_probability_of_a_half_is_no_error() -> None:
    calibration = Calibration((2,), Confidence())
    calibration.add(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    assert calibration.figures()[0].ece == 0.0


def test_sure_and_wrong_is_all_error() -> None:
    calibration = Calibration((2,), Confidence(0.01))
    calibration.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert calibration.figures()[0].ece == 100.0


def test_far_lower_logits_of_early_sessions_do_not_vanish() -> None:
    calibration = Calibration((2, 3), Confidence())
    calibration.add(torch.tensor([[-5000.0, -5000.0, 5000.0]]), torch.tensor([0]))
    first, second = calibration.figures()
    assert (first.ece, second.ece) == (50.0, 100.0)


def test_the_highest_logit_tells_and_not_the_highest_probability() -> None:
    logits = torch.tensor([[3.0, 2.9, 0.0], [-2.0, -9.0, 0.0]])
    calibration = Calibration((2, 3), Confidence())
    calibration.add(logits, torch.tensor([0, -1]))
    assert calibration.figures()[0].separation.auroc == 100.0


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=20))
def test_scores_of_any_size_keep_their_order(scores: list[float]) -> None:
    found = bounded(torch.tensor(sorted(scores), dtype=torch.float64), FITTED)
    assert bool((found.diff() >= -1e-15).all())
    assert 0 <= float(found[0]) <= float(found[-1]) <= 1


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-5, 5.8), (300.0, -1e3)])
def test_scores_of_any_spread_are_told_apart(scale: float, shift: float) -> None:
    """As those of a network to which all images look alike."""
    generator = torch.Generator().manual_seed(0)
    scores = scale * torch.randn(3000, generator=generator, dtype=torch.float64) + shift
    known = torch.arange(3000) < 1500
    scores[~known] -= scale
    mean, deviation = float(scores[known].mean()), float(scores[known].std())
    calibration = Calibration((1,), Confidence(1.0, shift, mean, deviation))
    calibration.add(scores[:, None], torch.where(known, 0, -1))
    found = calibration.figures()[0].separation
    assert found.auroc == pytest.approx(plain_auroc(scores[known].tolist(), scores[~known].tolist()), abs=0.05)
    assert found.fpr95 == pytest.approx(plain_fpr95(scores[known].tolist(), scores[~known].tolist()), abs=1)


def test_nothing_counted_is_no_figure() -> None:
    first = Calibration((2,), Confidence()).figures()[0]
    assert first.ece is None
    assert (first.separation.known, first.separation.auroc) == (0, None)
    assert isinstance(first, SessionCalibration)


def test_a_batch_takes_no_loop_over_sessions_and_memory_does_not_grow() -> None:
    calls: list[object] = []

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    numbers = []
    for sizes in (range(1, 3), range(1, 301)):
        calibration = Calibration(tuple(sizes), Confidence())
        logits, labels = draw(8, len(sizes))
        held = [tensor.shape for part in vars(calibration).values() for tensor in vars_of(part)]
        calls.clear()
        with Counting():
            calibration.add(logits, labels)
        numbers.append(len(calls))
        assert [tensor.shape for part in vars(calibration).values() for tensor in vars_of(part)] == held
    assert numbers[0] == numbers[1]


def vars_of(part: object) -> list[Tensor]:
    return [value for value in getattr(part, "__dict__", {}).values() if isinstance(value, Tensor)]
