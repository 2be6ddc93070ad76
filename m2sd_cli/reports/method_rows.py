"""Rows of a table of methods: a run, several runs over seeds, published methods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.metrics import Figures
from m2sd_cli.reports.published import Comparison, explain_marks

Cell = str | Decimal | float | MeanAndDeviation | None


@dataclass(frozen=True)
class MethodRow:
    """A row of the table: a method and its figures; None for a missing one."""

    method: str
    sessions: Sequence[Cell]  # overall accuracy after session 0, 1, ...
    average: Cell
    drop: Cell
    harmonic: Cell  # HM after the last session
    notes: Sequence[str] = ()  # lines that explain the marks of its cells


def run_row(method: str, runs: Sequence[Figures]) -> MethodRow:
    """Make the row of one run, or of several runs over seeds, with mean and deviation.

    Args:
        method: the name in the table.
        runs: figures of the same number of sessions each.
    """

    def joined(values: Sequence[float | None]) -> Cell:
        known = [each for each in values if each is not None]
        if len(known) < len(values):
            return None
        return known[0] if len(known) == 1 else MeanAndDeviation.of(known)

    sessions = zip(*(each.sessions for each in runs), strict=True)
    return MethodRow(
        method,
        [joined([each.overall for each in of_session]) for of_session in sessions],
        joined([each.average for each in runs]),
        joined([each.drop for each in runs]),
        joined([each.sessions[-1].harmonic for each in runs]),
    )


def row_of_length(row: MethodRow, sessions: int) -> MethodRow:
    """Return the row with a number of sessions; those that it lacks are empty."""
    return replace(row, sessions=[*row.sessions, *[None] * (sessions - len(row.sessions))])


def published_rows(comparison: Comparison, sessions: int) -> list[MethodRow]:
    """Make a row of each published method.

    Args:
        comparison: of the run; unless the run's sessions are the official ones, a row has session 0 alone.
        sessions: the number of sessions in the table.
    """
    rows, notes = [], explain_marks(comparison.rows, "the runs of m2sd")
    for each in comparison.rows:
        row = each.row
        middle: list[Cell] = [None] * (sessions - 1)
        if comparison.comparable:
            middle = list(row.sessions[1:]) if row.sessions else [*middle[:-1], row.last]
        figures = (row.average, row.drop, row.harmonic) if comparison.comparable else (None, None, None)
        name = f"{each.method.name} ({each.method.year}){each.mark}"
        rows.append(MethodRow(name, [each.marked_base, *middle], *figures, notes))
    return rows


def notes_of(rows: Sequence[MethodRow]) -> list[str]:
    """List the lines that explain the marks of all rows."""
    return list(dict.fromkeys(note for row in rows for note in row.notes))
