"""From the results of runs to means and deviations over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from m2sd_cli.ablation.records import Result
from m2sd_cli.ablation.rows import PLAIN, ROWS
from m2sd_cli.reports.deviation import MeanAndDeviation

ACCURACIES: Final = ("average", "last", "base", "novel", "harmonic", "session_0")


@dataclass(frozen=True)
class Line:
    """A row of the table."""

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


def lines(results: Sequence[Result]) -> list[Line]:
    """One line for each row that has a result, in the order of the rows."""
    by_row = {name: [each for each in results if each.row == name] for name in ROWS}
    plain = {each.seed: each for each in by_row[PLAIN]}
    return [_line(name, found, {} if name == PLAIN else plain) for name, found in by_row.items() if found]


def _line(name: str, found: list[Result], plain: dict[int, Result]) -> Line:
    pairs = [(each, plain[each.seed]) for each in found if each.seed in plain]
    return Line(
        row=name,
        what=ROWS[name].what,
        seeds=len(found),
        accuracies={figure: MeanAndDeviation.of([getattr(each, figure) for each in found]) for figure in ACCURACIES},
        above_plain={
            figure: MeanAndDeviation.of([getattr(own, figure) - getattr(other, figure) for own, other in pairs])
            for figure in ACCURACIES
        }
        if pairs
        else None,
        pairs=len(pairs),
        seconds=MeanAndDeviation.of([each.seconds for each in found]),
        ms_per_step=MeanAndDeviation.of([each.ms_per_step for each in found]),
    )
