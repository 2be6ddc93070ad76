"""Results to stdout, everything else to stderr."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from m2sd_cli.cli.streams import write_note, write_result
from m2sd_cli.distributed.torchrun import is_main_process

if TYPE_CHECKING:
    from m2sd_cli.reports.deviation import MeanAndDeviation

# What tables over seeds or draws call their figures: top-1 in per cent, of the last session but for AVG.
FIGURES = {"average": "AVG", "last": "last", "base": "base", "novel": "novel", "harmonic": "HM"}


def printable(text: str) -> str:
    """Escape the characters of a text that could steer a terminal, turn its text around, hide or begin a line."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    code = ord(char)
    if char.isprintable():
        return char
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def as_text(path: Path) -> str:
    """Return a path as text that can be written anywhere; bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def result(text: str) -> None:
    """Print one line of the result."""
    if is_main_process():
        write_result(_encodable(printable(text), sys.stdout))


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


def command(name: str, run: Path | None, rest: str = "") -> str:
    """Return a command to type next, on the same run folder."""
    chosen = f" --run {shlex.quote(str(run))}" if run is not None else ""
    return f"m2sd {name}{chosen}{rest}"


def duration(seconds: float) -> str:
    """Format seconds for a person."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Align columns under their headings: numbers to the right, words to the left."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    numeric = [all(_is_figure(row[column]) for row in rows) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        columns = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in columns).rstrip()

    return [line(header), *(line(row) for row in rows)]


def format_mean(figure: "MeanAndDeviation", sign: str = "") -> str:
    """Format mean and deviation with two digits; with `sign` "+", a mean above 0 has its sign."""
    deviation = "" if figure.deviation is None else f" +- {figure.deviation:.2f}"
    return f"{figure.mean:{sign}.2f}{deviation}"


def _is_figure(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).removeprefix("-").isdecimal()
