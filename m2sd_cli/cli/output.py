"""Results to stdout, everything else to stderr."""

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from m2sd_cli import plugin_files
from m2sd_cli.cli.streams import write_note, write_result
from m2sd_cli.distributed.torchrun import is_main_process
from m2sd_cli.plugin_files import OPTION as PLUGIN
from m2sd_cli.progress import duration as duration
from m2sd_cli.reading import printable as printable

if TYPE_CHECKING:
    from m2sd_cli.reports.deviation import MeanAndDeviation

NARROWEST = 24  # characters of a column of words, which is broken into lines of no fewer
GAP = "  "  # between two columns

# What tables over seeds or draws call their figures: top-1 in per cent, of the last session but for AVG.
FIGURES = {"average": "AVG", "last": "last", "base": "base", "novel": "novel", "harmonic": "HM"}


def as_text(path: Path) -> str:
    """Return a path as text that can be written anywhere; bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def result(text: str) -> None:
    """Print one line of the result."""
    if is_main_process():
        write_result(_encodable(printable(text), sys.stdout))


def results(lines: Iterable[str]) -> None:
    """Print lines of the result, tables and sentences, of which a terminal's width breaks those that are longer."""
    width = room()
    for line in lines:
        for part in [line] if width is None else _broken(printable(line), width, words=False):
            result(part)


def document(content: Mapping[str, Any]) -> None:
    """Print the result as the one JSON document of a command, in ASCII."""
    if is_main_process():
        write_result(
            json.dumps(content, indent=1).replace("\x7f", "\\u007f")
        )  # of ASCII, json leaves DEL alone as it is


def note(text: str, quiet: bool = False) -> None:
    """Say something in one line that is not the result."""
    if not quiet and is_main_process():
        write_note(_encodable(printable(text), sys.stderr))


def _encodable(text: str, stream: TextIO) -> str:
    """Escape the characters that the encoding of a stream lacks, such as an accent in ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def command(name: str, run: Path | None, rest: str = "", **options: object) -> str:
    """Return a command to type next, on the same run folder, with the options that were given: others are None."""
    given = {"run": run, **options}
    words = [f" --{key.replace('_', '-')} {shlex.quote(str(each))}" for key, each in given.items() if each is not None]
    plugins = "".join(f"{PLUGIN} {shlex.quote(str(file))} " for file in plugin_files.loaded)
    return f"m2sd {plugins}{name}{''.join(words)}{rest}"


def as_word(path: Path) -> str:
    """Return a path as the shell takes it, from the current folder on."""
    name = os.path.relpath(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def room() -> int | None:
    """Return the characters of a line of the terminal that stdout is; None elsewhere, where no line is broken."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Align columns under their headings: numbers to the right, words to the left.

    In a terminal that is too narrow cells of words are broken into lines, and the columns that still do not fit follow
    below, each block with the first column before it.
    """
    rows = [[printable(cell).rstrip(" ") for cell in row] for row in rows]  # an end that nobody sees takes no room
    columns = [_Column(heading, [row[number] for row in rows]) for number, heading in enumerate(header)]
    width = room()
    if width is None or _total(columns, least=False) <= width:
        return _aligned(columns)
    blocks = [columns[:1]]
    for column in columns[1:]:
        if len(blocks[-1]) > 1 and _total([*blocks[-1], column], least=True) > width:
            blocks.append(columns[:1])
        blocks[-1].append(column)
    lines: list[str] = []
    for block in blocks:
        narrowed = [*block]
        while _total(narrowed, least=False) > max(width, _total(block, least=True)):
            widest = max(range(len(narrowed)), key=lambda number: narrowed[number].width - narrowed[number].least)
            narrowed[widest] = replace(narrowed[widest], limit=narrowed[widest].width - 1)
        lines += ["", *_aligned(narrowed)] if lines else _aligned(narrowed)
    return lines


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: list[str]
    limit: int | None = None  # characters of a line; None: those of the longest cell

    @cached_property
    def numeric(self) -> bool:
        return all(map(_is_figure, self.cells))

    @property
    def width(self) -> int:
        longest = max(map(len, [self.heading, *self.cells]))
        return longest if self.limit is None else min(longest, self.limit)

    @property
    def least(self) -> int:
        """The width below which it is not broken."""
        return self.width if self.numeric else min(self.width, max(NARROWEST, len(self.heading)))

    def lines(self, cell: str) -> list[str]:
        return [
            part.rjust(self.width) if self.numeric else part.ljust(self.width) for part in _broken(cell, self.width)
        ]


def _total(columns: list[_Column], least: bool) -> int:
    return sum(each.least if least else each.width for each in columns) + len(GAP) * (len(columns) - 1)


def _aligned(columns: list[_Column]) -> list[str]:
    lines = []
    for cells in zip(*([each.heading, *each.cells] for each in columns), strict=True):
        parts = [column.lines(cell) for column, cell in zip(columns, cells, strict=True)]
        blank = [" " * column.width for column in columns]
        for number in range(max(map(len, parts))):
            line = GAP.join(part[number] if number < len(part) else blank[place] for place, part in enumerate(parts))
            lines.append(line.rstrip())
    return lines


def _broken(text: str, width: int, words: bool = True) -> list[str]:
    """Break a text that does not fit a width between words, and longer `words` anywhere."""
    if len(text) <= width:
        return [text]
    kept = text.replace(" %", "\u00a0%")  # a number and its unit stay together
    lines = textwrap.wrap(kept, width, break_long_words=words, break_on_hyphens=False)
    return [line.replace("\u00a0%", " %") for line in lines] or [""]


def format_figure(value: float | None) -> str:
    """Format a figure with two digits; a dash for none."""
    return "-" if value is None else f"{value:.2f}"


def format_mean(figure: "MeanAndDeviation", sign: str = "") -> str:
    """Format mean and deviation with two digits; with `sign` "+", a mean above 0 has its sign."""
    deviation = "" if figure.deviation is None else f" +- {figure.deviation:.2f}"
    return f"{figure.mean:{sign}.2f}{deviation}"


def older_file(path: "Path") -> str:
    """Say in the middle of a line that a file which was not written is there, of an earlier time."""
    return f"; {path} is an older one" if path.exists() else ""


def _is_figure(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).removeprefix("-").isdecimal()


def unknown_tells_little(told: float) -> str:
    """Say that "unknown" is worth little, and the estimate in per cent behind it."""
    return (
        f'"unknown" is not reliable here: in a test, images of a known class and of a class left out were told apart '
        f"in {told:.0f} % of pairs, where chance is 50; more classes, longer training or a pretrained network may help"
    )
