"""Means and deviations over the seeds from the results of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from m2sd_cli.ablation.records import Result
from m2sd_cli.ablation.rows import PLAIN, ROWS
from m2sd_cli.reports.deviation import MeanAndDeviation

ACCURACIES: Final = ("average", "last", "base", "novel", "harmonic", "session_0")


@dataclass(frozen=True)
class RowSummary:
    """A row of the table over its seeds; the fields are those of JSON."""

    row: str
    what: str
    seeds: int
    accuracies: dict[str, MeanAndDeviation]  # by the names of ACCURACIES, in per cent
    # The mean of the differences seed by seed, in points: runs of a seed have stage 1 in common, so that their
    # differences vary less than they do. None without a seed that both rows have, and of the plain row itself.
    above_plain: dict[str, MeanAndDeviation] | None
    pairs: int  # seeds that both rows have
    seconds: MeanAndDeviation  # of stage 2
    ms_per_step: MeanAndDeviation


def summarise(results: Sequence[Result]) -> list[RowSummary]:
    """Summarise each row that has a result, in the order of the rows."""
    by_row = {name: [each for each in results if each.row == name] for name in ROWS}
    plain = {each.seed: each for each in by_row[PLAIN]}
    return [_summary(name, runs, {} if name == PLAIN else plain) for name, runs in by_row.items() if runs]


def _summary(name: str, runs: list[Result], plain: dict[int, Result]) -> RowSummary:
    pairs = [(each, plain[each.seed]) for each in runs if each.seed in plain]
    return RowSummary(
        row=name,
        what=ROWS[name].description,
        seeds=len(runs),
        accuracies={figure: MeanAndDeviation.of([getattr(each, figure) for each in runs]) for figure in ACCURACIES},
        above_plain={
            figure: MeanAndDeviation.of([getattr(one, figure) - getattr(other, figure) for one, other in pairs])
            for figure in ACCURACIES
        }
        if pairs
        else None,
        pairs=len(pairs),
        seconds=MeanAndDeviation.of([each.seconds for each in runs]),
        ms_per_step=MeanAndDeviation.of([each.ms_per_step for each in runs]),
    )
