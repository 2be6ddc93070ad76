"""Tables for a paper, in LaTeX with booktabs."""

from collections.abc import Sequence

from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.method_rows import Cell, MethodRow, notes_of

ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX; an invisible character becomes a space."""
    return "".join(ESCAPED.get(char, char if char.isprintable() else " ") for char in text)


def latex_table(rows: Sequence[MethodRow]) -> str:
    """Write a table of methods: accuracy after each session, AVG, PD and HM, in per cent.

    Args:
        rows: at least one, all with the same number of sessions.
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
        *(f"% {line}" for line in notes_of(rows)),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Cell) -> str:
    if value is None:
        return "--"
    if isinstance(value, MeanAndDeviation):
        deviation = "" if value.deviation is None else f" \\pm {value.deviation:.2f}"
        return f"${value.mean:.2f}{deviation}$"
    return f"{value:.2f}" if isinstance(value, float) else escape_latex(str(value))
