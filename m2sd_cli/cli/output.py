"""Results to stdout, everything else to stderr."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2sd_cli.launch import speaks

if TYPE_CHECKING:
    from m2sd_cli.data.datasets import Skipped
    from m2sd_cli.runs.manifest import SkippedRecord

NAMED = 3  # pictures that were left out


def printable(text: str) -> str:
    """Text from outside without control characters, which could steer a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def as_text(path: Path) -> str:
    """A path as text that can be written anywhere; bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def result(text: str) -> None:
    """Print a line of the result."""
    if speaks():
        print(text)


def document(content: Mapping[str, Any]) -> None:
    """Print the result as the one JSON document of a command."""
    if speaks():
        print(json.dumps(content, indent=1, ensure_ascii=False))


def note(text: str, quiet: bool = False) -> None:
    """Say something that is not the result."""
    if not quiet and speaks():
        print(text, file=sys.stderr, flush=True)


def name_skipped(skipped: "Sequence[Skipped | SkippedRecord]", quiet: bool) -> None:
    """Say how many pictures were left out, and which are the first of them."""
    if skipped:
        count = len(skipped)
        what = "1 picture cannot be read and is" if count == 1 else f"{count} pictures cannot be read and are"
        named = "; ".join(f"{printable(each.file)} ({printable(each.reason)})" for each in skipped[:NAMED])
        more = f"; and {count - NAMED} more" if count > NAMED else ""
        note(f"{what} left out: {named}{more}", quiet)


def command(name: str, run: Path | None, rest: str = "") -> str:
    """A command to type next, on the same run folder."""
    chosen = f" --run {shlex.quote(str(run))}" if run is not None else ""
    return f"m2sd {name}{chosen}{rest}"


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns under their headings: numbers to the right, words to the left."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    numeric = [all(_is_figure(row[column]) for row in rows) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        columns = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in columns).rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])


def _is_figure(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).removeprefix("-").isdecimal()
