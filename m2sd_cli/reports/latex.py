"""Tables for a paper, in LaTeX with booktabs."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.metrics import Figures
from m2sd_cli.reports.published import Comparison

ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
Cell = str | Decimal | float | MeanAndDeviation | None


@dataclass(frozen=True)
class LatexRow:
    """A row of the table: a method and its figures, None where there is none."""

    method: str
    sessions: Sequence[Cell]  # overall accuracy after session 0, 1, ...
    average: Cell
    drop: Cell
    harmonic: Cell  # HM after the last session


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX; characters that nobody sees become a space."""
    return "".join(ESCAPED.get(char, char if char.isprintable() else " ") for char in text)


def run_row(method: str, runs: Sequence[Figures]) -> LatexRow:
    """Make the row of one run, or that of several over seeds: mean and deviation.

    Args:
        method: the name in the table.
        runs: figures of as many sessions each.
    """

    def joined(values: Sequence[float | None]) -> Cell:
        known = [each for each in values if each is not None]
        if len(known) < len(values):
            return None
        return known[0] if len(known) == 1 else MeanAndDeviation.of(known)

    sessions = zip(*(each.sessions for each in runs), strict=True)
    return LatexRow(
        method,
        [joined([each.overall for each in of_session]) for of_session in sessions],
        joined([each.average for each in runs]),
        joined([each.drop for each in runs]),
        joined([each.sessions[-1].harmonic for each in runs]),
    )


def published_rows(comparison: Comparison, sessions: int) -> list[LatexRow]:
    """Make a row of each published method.

    Args:
        comparison: of the run.
        sessions: of the table; of a method that has other ones only the first is put in.
    """
    rows = []
    for each in comparison.rows:
        row = each.row
        comparable = sessions == 1 + comparison.official
        middle: list[Cell] = [None] * (sessions - 1)
        if comparable:
            middle = list(row.sessions[1:]) if row.sessions else [*middle[:-1], row.last]
        figures = (row.average, row.drop, row.harmonic) if comparable else (None, None, None)
        rows.append(LatexRow(f"{each.method.name} ({each.method.year})", [row.base, *middle], *figures))
    return rows


def latex_table(rows: Sequence[LatexRow]) -> str:
    """Write a table of methods: accuracy after each session, AVG, PD and HM, in per cent.

    Args:
        rows: at least one, all with as many sessions.
    """
    sessions = len(rows[0].sessions)
    head = ["Method", *map(str, range(sessions)), "AVG", "PD", "HM"]
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        f" & \\multicolumn{{{sessions}}}{{c}}{{accuracy after session, \\%}} \\\\",
        f"\\cmidrule(lr){{2-{sessions + 1}}}",
        f"{' & '.join(head)} \\\\",
        "\\midrule",
        *(
            " & ".join([escape_latex(row.method), *map(_cell, (*row.sessions, row.average, row.drop, row.harmonic))])
            + " \\\\"
            for row in rows
        ),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Cell) -> str:
    if value is None:
        return "--"
    if isinstance(value, MeanAndDeviation):
        deviation = "" if value.deviation is None else f" \\pm {value.deviation:.2f}"
        return f"${value.mean:.2f}{deviation}$"
    return f"{value:.2f}" if isinstance(value, float) else escape_latex(str(value))
