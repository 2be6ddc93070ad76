"""Means and deviations over seeds, by hand and by Python's statistics."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.ablation.records import Result
from m2sd_cli.ablation.rows import ROWS
from m2sd_cli.ablation.table import ACCURACIES, summarise
from m2sd_cli.reports.deviation import MeanAndDeviation

DESCRIBED = {name: row.description for name, row in ROWS.items()}
PERCENT = st.floats(0, 100, allow_nan=False)


def known(figure: MeanAndDeviation | None) -> MeanAndDeviation:
    assert figure is not None
    return figure


def result(row: str, seed: int, last: float, seconds: float = 10.0, ms_per_step: float = 5.0) -> Result:
    """A result whose other figures follow from `last`."""
    return Result(
        seed=seed,
        row=row,
        session_0=last / 2,
        last=last,
        average=last / 4,
        base=last / 5,
        novel=last / 8,
        harmonic=last / 10,
        seconds=seconds,
        ms_per_step=ms_per_step,
    )


def test_the_deviation_is_that_of_a_sample() -> None:
    assert MeanAndDeviation.of([2.0, 4.0, 9.0]) == MeanAndDeviation(5.0, math.sqrt((9 + 1 + 16) / 2))
    assert MeanAndDeviation.of([3.0]) == MeanAndDeviation(3.0, None)


@given(st.lists(PERCENT, min_size=2, max_size=6), st.lists(PERCENT, min_size=2, max_size=6))
def test_figures_and_differences_are_statistics_of_the_seeds(plain: list[float], own: list[float]) -> None:
    results = [result("plain", seed, value) for seed, value in enumerate(plain)]
    results += [result("m2sd", seed, value, seconds=seed, ms_per_step=2 * seed) for seed, value in enumerate(own)]
    first, second = summarise(results, DESCRIBED)
    assert (first.row, first.seeds, first.above) == ("plain", len(plain), None)
    assert (second.row, second.seeds) == ("m2sd", len(own))
    assert set(second.accuracies) == set(ACCURACIES)
    assert known(second.accuracies["last"]).mean == pytest.approx(statistics.fmean(own), rel=1e-9, abs=1e-9)
    assert known(second.accuracies["last"]).deviation == pytest.approx(statistics.stdev(own), rel=1e-9, abs=1e-9)
    assert known(second.accuracies["novel"]).mean == pytest.approx(statistics.fmean(own) / 8, rel=1e-9, abs=1e-9)
    differences = [a - b for a, b in zip(own, plain, strict=False)]  # of the seeds that both have
    assert second.above is not None
    assert known(second.above["last"]).mean == pytest.approx(statistics.fmean(differences), rel=1e-9, abs=1e-9)
    assert known(second.above["last"]).deviation == pytest.approx(statistics.stdev(differences), rel=1e-9, abs=1e-9)
    assert (first.pairs, second.pairs) == (0, len(differences))
    assert known(second.above["average"]).mean == pytest.approx(statistics.fmean(differences) / 4, rel=1e-9, abs=1e-9)
    assert second.seconds == MeanAndDeviation.of([float(seed) for seed in range(len(own))])
    assert second.ms_per_step == MeanAndDeviation.of([2.0 * seed for seed in range(len(own))])


def test_seeds_are_paired_by_number_and_not_by_place() -> None:
    results = [result("mixup", 1, 30.0), result("plain", 0, 10.0), result("mixup", 0, 15.0), result("plain", 1, 20.0)]
    _, line = summarise(results, DESCRIBED)
    assert line.above is not None
    assert line.above["last"] == MeanAndDeviation.of([5.0, 10.0])


def test_without_a_seed_in_common_there_is_no_difference() -> None:
    plain, both, m2sd = summarise([result("m2sd", 1, 3.0), result("both", 0, 2.0), result("plain", 0, 1.0)], DESCRIBED)
    assert (plain.row, both.row, m2sd.row) == ("plain", "both", "m2sd")
    assert both.above is not None
    assert both.above["last"] == MeanAndDeviation(1.0, None)
    assert (both.pairs, m2sd.pairs) == (1, 0)
    assert m2sd.above is None
    assert summarise([], DESCRIBED) == []
