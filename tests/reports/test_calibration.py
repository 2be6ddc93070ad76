"""ECE, AUROC and FPR95 against loops over images, and over all pairs of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.method.calibration import auroc
from m2sd_cli.reports.answers import session_answers
from m2sd_cli.reports.calibration import chain_calibration, expected_calibration_error, fpr95
from tests.reports.test_answers import CHAINS, CONFIDENCE, argmax, draw

FLOATS = st.integers(-4, 4).map(float) | st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False)
SCORES = st.lists(FLOATS, min_size=1, max_size=30)


def plain_ece(probabilities: list[float], right: list[bool]) -> float | None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for each in zip(probabilities, right, strict=True):
        bins.setdefault(max(1, math.ceil(15 * each[0])), []).append(each)
    gaps = [abs(sum(hit for _, hit in held) - sum(p for p, _ in held)) for held in bins.values()]
    return 100 * sum(gaps) / len(right) if right else None


def plain_auroc(known: list[float], unknown: list[float]) -> float:
    wins = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unknown]
    return 100 * sum(wins) / len(wins)


def plain_fpr95(known: list[float], unknown: list[float]) -> float:
    """At the highest threshold at which 95 % of the known images pass."""
    threshold = max(t for t in known if 100 * sum(k >= t for k in known) >= 95 * len(known))
    return 100 * sum(u >= threshold for u in unknown) / len(unknown)


def float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(SCORES, SCORES)
def test_auroc_and_fpr95_are_those_of_all_pairs(known: list[float], unknown: list[float]) -> None:
    for dtype in (torch.float32, torch.float64):
        scores = torch.tensor(known, dtype=dtype), torch.tensor(unknown, dtype=dtype)
        assert auroc(*scores) == pytest.approx(plain_auroc(known, unknown), abs=1e-9)
        assert fpr95(*scores) == pytest.approx(plain_fpr95(known, unknown), abs=1e-9)


def test_95_of_100_known_images_are_enough() -> None:
    known = torch.arange(100) / 100
    assert [fpr95(known, torch.tensor([unknown])) for unknown in (0.045, 0.05, 0.055)] == [0.0, 100.0, 100.0]


@given(st.lists(st.tuples(st.floats(0, 1) | st.integers(0, 15).map(lambda m: m / 15), st.booleans()), max_size=40))
def test_ece_is_that_of_the_loop(images: list[tuple[float, bool]]) -> None:
    probabilities, right = [p for p, _ in images], [hit for _, hit in images]
    ece = expected_calibration_error(float64(probabilities), torch.tensor(right, dtype=torch.bool))
    expected = plain_ece(probabilities, right)
    assert ece == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_a_bin_has_its_upper_end() -> None:
    """Of 15 bins the third is (2/15, 3/15]: 0.2 and a little less share a bin, a little more has the next one."""
    for other, expected in ((0.19, abs(0.2 + 0.19 - 1) / 2), (0.21, (0.8 + 0.21) / 2)):
        ece = expected_calibration_error(float64([0.2, other]), torch.tensor([True, False]))
        assert ece == pytest.approx(100 * expected)


@pytest.mark.parametrize(("probability", "right", "ece"), [(0.5, [True, False], 0.0), (1.0, [False], 100.0)])
def test_half_right_at_a_half_is_no_error_and_sure_and_wrong_is_all(
    probability: float, right: list[bool], ece: float
) -> None:
    assert expected_calibration_error(float64([probability] * len(right)), torch.tensor(right)) == ece


@settings(max_examples=60)
@given(CHAINS, st.integers(0, 30), st.integers(0, 999))
def test_every_session_is_as_the_loop_says(sizes: tuple[int, ...], images: int, seed: int) -> None:
    logits, labels = draw(images, sizes[-1], seed)
    logits += torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed))  # no probability ends a bin
    rows, truths = logits.tolist(), labels.tolist()
    figures = chain_calibration(session_answers(logits, labels, sizes, CONFIDENCE, logits), sizes)
    assert [each.session for each in figures] == list(range(len(sizes)))
    for size, each in zip(sizes, figures, strict=True):
        scores = [max(row[:size]) for row in rows]
        known = [n for n in range(images) if 0 <= truths[n] < size]
        unknown = [n for n in range(images) if n not in known]
        sums = [sum(math.exp((z - scores[n]) / 1.5) for z in rows[n][:size]) for n in range(images)]
        ece = plain_ece([1 / sums[n] for n in known], [argmax(rows[n], size) == truths[n] for n in known])
        assert (each.known, each.unknown) == (len(known), len(unknown))
        assert each.ece == (None if ece is None else pytest.approx(ece, abs=1e-9))
        if known and unknown:
            both = [scores[n] for n in known], [scores[n] for n in unknown]
            assert each.auroc == pytest.approx(plain_auroc(*both), abs=1e-9)
            assert each.fpr95 == pytest.approx(plain_fpr95(*both), abs=1e-9)
        else:
            assert (each.auroc, each.fpr95) == (None, None)


def test_the_highest_logit_tells_and_not_the_highest_probability() -> None:
    logits = torch.tensor([[3.0, 2.9, 0.0], [-2.0, -9.0, 0.0]])
    answers = session_answers(logits, torch.tensor([0, -1]), (2, 3), CONFIDENCE, logits)
    assert chain_calibration(answers, (2, 3))[0].auroc == 100.0
