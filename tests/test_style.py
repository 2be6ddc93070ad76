"""Docstrings tell of a thing in short sentences that begin with a verb or a noun phrase, and hold no measurement.

All files have one word for one thing.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "m2sd_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("m2sd_cli", "tests", ".github", "completions")
READ = [
    path
    for path in (ROOT / "README.md", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*"))))
    if path.suffix in (".py", ".md", ".j2", ".toml", ".fish", ".bash") and path != Path(__file__)
]
THIRD_WORD = re.compile("picture", re.IGNORECASE)  # the two words are image, and photo for a person's own
INTERFACES = ('"picture"', '"pictures"', ".pictures", "pictures: int")  # of JSON and Python, which stay as they are
REFUSED = ("What", "Whether", "How", "All", "Everything", "Of")  # first words; ruff's D401 asks functions for a verb
LONGEST = 32  # words of a sentence
SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields|Examples?):$", re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.:;])\s+")
FIGURE = re.compile(
    r"\d\.\d[^.]*\b(?:AVG|HM|AUROC|points)\b|\b(?:AVG|HM|AUROC)\b[^.]*\d\.\d|\d images/s|\d times as |\bin \d+ of \d+ "
    r"|\b(?:half|third|quarter|fifth|tenth) of the time\b"
)


def docstrings(source: str) -> Iterator[str]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node)):
            yield docstring


def comments(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def refused_beginnings(source: str) -> list[str]:
    """The first lines of docstrings that begin with the word of a question or of a fragment."""
    lines = [docstring.split("\n")[0] for docstring in docstrings(source)]
    return [line for line in lines if line.split()[0].strip(",.:;") in REFUSED]


def long_sentences(source: str) -> list[str]:
    """The sentences of docstrings that have to be read twice, before the sections; formulas have lines of their own."""
    found = []
    for docstring in docstrings(source):
        for paragraph in SECTION.split(docstring)[0].split("\n\n"):
            if not paragraph.startswith("    "):
                found += [each for each in SENTENCE.split(paragraph) if len(each.split()) > LONGEST]
    return found


def measured_figures(source: str) -> list[str]:
    """The measurements in docstrings and comments; these belong to m2sd_cli/recipes/results.toml."""
    return [found[0] for text in (*docstrings(source), *comments(source)) for found in FIGURE.finditer(text)]


def third_words(text: str) -> list[str]:
    """The lines that have a third word beside image and photo, but for the names that others rely on."""
    for name in INTERFACES:
        text = text.replace(name, "")
    return [line for line in text.splitlines() if THIRD_WORD.search(line)]


def test_an_image_is_called_image_or_photo() -> None:
    assert {
        path.name: found
        for path in READ
        if (found := third_words(f"{path.name}\n{path.read_text('utf-8', 'replace')}"))
    } == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def read_pictures():", 1),
        ("Pictures of cats\nand a picture", 2),
        ('"pictures": learned.pictures', 0),
        ("images and photos", 0),
    ],
)
def test_a_planted_word_is_found(text: str, found: int) -> None:
    assert len(third_words(text)) == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_docstrings_and_comments_read_well(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert refused_beginnings(source) == []
    assert long_sentences(source) == []
    assert measured_figures(source) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""What a module has."""', "What a module has."),
        ('def f() -> bool:\n    """Whether it holds.\n\n    More.\n    """', "Whether it holds."),
        ('class A:\n    def f(self) -> None:\n        """How it is done."""', "How it is done."),
        ('class A:\n    """Everything."""', "Everything."),
    ],
)
def test_a_planted_beginning_is_found(source: str, line: str) -> None:
    assert refused_beginnings(source) == [line]


def test_a_planted_sentence_is_found() -> None:
    long = " ".join(["word"] * 33) + "."
    assert long_sentences(f'"""Short.\n\n{long} Short.\n"""') == [long]
    assert long_sentences(f'"""Short.\n\nArgs:\n    x: {long}\n"""') == []
    assert long_sentences('"""Short: ' + "word " * 20 + "; " + "word " * 20 + '."""') == []


@pytest.mark.parametrize(
    ("source", "figures"),
    [
        ("x = 1  # 64.7 of AVG", 1),
        ('"""It has an AVG of 64.7."""', 1),
        ('"""A step takes 1.5 times as long."""', 1),
        ("x = 1  # it aborted in 3 of 10 trainings", 1),
        ('"""It is read in a fifth of the time."""', 1),
        ("x = 1  # bytes; 2 MB", 0),
        ('"""Compute AVG over sessions 0, 1, ..."""', 0),
    ],
)
def test_a_planted_figure_is_found(source: str, figures: int) -> None:
    assert len(measured_figures(source)) == figures
