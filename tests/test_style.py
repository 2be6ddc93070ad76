"""Docstrings of the package tell what a thing is or does: they begin with a verb or a noun phrase."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "m2sd_cli"
REFUSED = ("What", "Whether", "How", "All", "Everything", "Of")


def refused_beginnings(source: str) -> list[str]:
    """The first lines of docstrings that begin with the word of a question or of a fragment."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    lines = [docstring.split("\n")[0] for docstring in docstrings if docstring]
    return [line for line in lines if line.split()[0].strip(",.:;") in REFUSED]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_docstring_is_a_question_or_a_fragment(path: Path) -> None:
    assert refused_beginnings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""What a module has."""', "What a module has."),
        ('def f() -> bool:\n    """Whether it holds.\n\n    More.\n    """', "Whether it holds."),
        ('class A:\n    def f(self) -> None:\n        """How it is done."""', "How it is done."),
        ('class A:\n    """Everything."""', "Everything."),
    ],
)
def test_a_planted_one_is_found(source: str, line: str) -> None:
    assert refused_beginnings(source) == [line]
