"""Figures in sentences: each is a cell of a table, a difference of two, or a number that names its recipe."""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from m2sd_cli.recipes.results import read_results
from tests.documents.markdown import Document
from tests.documents.tables import published_rows

FIGURE = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*[\d/])|\b\d[\d,]*(?= images/s)")
NOT_MEASURED = re.compile(
    r"`[^`\n]*`|\]\([^)]*\)|\w+://\S+|\bdoi \S+|\bPython \S+(?: (?:and|to) \S+)?|\btorch\w* \S+|\bApache-\S+"
    r"|\bsections? \S+(?: to \S+)?"
)


class Cell(Decimal):
    """The figure of a cell, and the deviation over seeds beside it, if it has one."""

    deviation: object = None


def sentences_of(document: Document) -> list[Mapping[str, Any]]:
    """Return the entries of `results.toml` on a document."""
    return [each for each in read_results()["sentences"] if each["document"] == document.name]


def written(sentence: Mapping[str, Any]) -> str:
    """Write the words of an entry with its figures.

    Raises:
        ValueError: a figure is not, or not once, in the table that it names.
    """
    return str(sentence["words"]).format(*map(evaluate, sentence["figures"]))


def evaluate(figure: object) -> object:
    """Return a number as it is, and the cell or the difference of two cells that a text names."""
    if not isinstance(figure, str) or " | " not in figure:
        return figure
    cells = [find_cell([part.strip() for part in each.split(" | ")]) for each in figure.split(" - ")]
    if len(cells) == 1:
        return cells[0]
    first, second = cells
    assert isinstance(first, Decimal)
    assert isinstance(second, Decimal)
    return first - second


def find_cell(names: Sequence[str]) -> object:
    """Find a cell by table, cells at the left of it, and column; by table and key, a setting of the table.

    Raises:
        ValueError: there is none, or more than one.
    """
    table, *left, column = names
    if table == "recipes":
        return as_cell(read_results()["recipes"][left[0]][column])
    if table.startswith("published "):
        columns = ["method", "session 0", "last", "AVG", "PD", "HM"]
        rows = published_rows(*table.split()[1:])
        if left == ["best"]:
            return max(cell for row in rows if isinstance(cell := as_cell(row[columns.index(column)]), Decimal))
    else:
        entry = read_results()["tables"][table]
        if not left:
            return as_cell(entry[column])
        columns, rows = entry["columns"], entry["rows"]
    found = [row for row, keys in with_groups(rows) if set(left) <= set(keys[: len(left)])]
    if len(found) != 1:
        raise ValueError(f"{' | '.join(names)} is in {len(found)} rows")
    return as_cell(found[0][columns.index(column)])


def with_groups(rows: Sequence[Sequence[object]]) -> Iterator[tuple[Sequence[object], list[str]]]:
    """Yield each row, and its cells as texts, of which an empty first one is that of the row above."""
    first = ""
    for row in rows:
        first = str(row[0]) or first
        yield row, [first, *map(str, row[1:])]


def as_cell(value: object) -> object:
    """Take a number, or a mean and its deviation, for a figure; leave a text as it is."""
    mean, deviation = value if isinstance(value, list) else (value, None)
    try:
        cell = Cell(str(mean))
    except InvalidOperation:
        return mean
    cell.deviation = deviation
    return cell


def pattern(words: str) -> re.Pattern[str]:
    """Return a pattern of words, which may be divided into lines anywhere."""
    return re.compile(r"\s+".join(map(re.escape, words.split())))


def missing_sentences(document: Document) -> list[str]:
    """List the sentences that a document should have by the file of figures, and does not have so."""
    return [words for each in sentences_of(document) if not pattern(words := written(each)).search(document.prose)]


def stray_figures(document: Document) -> list[str]:
    """List the decimal figures and the speeds in sentences that the file of figures does not have."""
    rest = document.hand_written
    for each in sentences_of(document):
        rest = pattern(written(each)).sub("", rest)
    return FIGURE.findall(NOT_MEASURED.sub("", rest))
