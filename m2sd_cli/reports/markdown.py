"""Tables in Markdown, as GitHub and pandoc read them."""

import re
from collections.abc import Sequence

from m2sd_cli.reading import printable
from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.method_rows import Cell, MethodRow, notes_of


def escape_markdown(text: str) -> str:
    """Escape a text for a cell, so that it is neither markup nor HTML."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", printable(text))


def markdown_table(rows: Sequence[MethodRow]) -> str:
    """Write a table of methods: accuracy after each session, AVG, PD and HM, in per cent.

    Args:
        rows: at least one, all with the same number of sessions.
    """
    head = ["method", *map(str, range(len(rows[0].sessions))), "AVG", "PD", "HM"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    lines += [
        [escape_markdown(row.method), *map(_cell, (*row.sessions, row.average, row.drop, row.harmonic))] for row in rows
    ]
    notes = "".join(f"\n{escape_markdown(line)}\n" for line in notes_of(rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + notes


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, MeanAndDeviation):
        return f"{value.mean:.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")
    return f"{value:.2f}" if isinstance(value, float) else escape_markdown(str(value))
