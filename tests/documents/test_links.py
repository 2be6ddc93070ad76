"""Every link within the repository leads to a file, and to a heading if it names one."""

from urllib.parse import unquote

import pytest

from tests.documents.markdown import ROOT, Document, documents


def dead_links(document: Document) -> list[str]:
    """List the relative links that lead nowhere."""
    dead = []
    for line, target in document.links():
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (document.path.parent / path).resolve() if path else document.path
        if not file.exists() or not file.is_relative_to(ROOT):
            dead.append(f"{document.name}:{line}: {target}")
        elif anchor and file.suffix == ".py":
            lines = len(file.read_text(encoding="utf-8").splitlines())
            if anchor not in {f"L{number}" for number in range(1, lines + 1)}:
                dead.append(f"{document.name}:{line}: {target}")
        elif anchor and file.suffix == ".md":
            text = document.text if file == document.path else file.read_text(encoding="utf-8")
            if anchor not in Document(file, text).anchors:
                dead.append(f"{document.name}:{line}: {target}")
    return dead


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_links_lead_somewhere(document: Document) -> None:
    assert dead_links(document) == []


def test_there_are_links() -> None:
    assert sum(len(list(document.links())) for document in documents()) > 5


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](LICENSE)", False),
        ("![a](.github/report.png)", False),
        ("[a](nowhere.md)", True),
        ("[a](../README.md)", True),
        ("[a](#the-first-one)\n\n## The first `one`!", False),
        ("[a](#one-1)\n\n## One\n\n## One", False),
        ("[a](#one-2)\n\n## One\n\n## One", True),
        ("[a](#two)\n\n```sh\n## Two\n```\n", True),
        ("[a](.github/CONTRIBUTING.md#the-map)", False),
        ("[a](.github/CONTRIBUTING.md#the-sea)", True),
        ("[a](m2sd_cli/method/losses.py#L1)", False),
        ("[a](m2sd_cli/method/losses.py#L9999)", True),
        ("[a](https://example.org/nowhere)", False),
        ("`[a](nowhere.md)`", False),
        ('<img src=".github/report.png" width="9">', False),
        ('<img width="9" src=".github/none.png">', True),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, dead: bool) -> None:
    assert bool(dead_links(Document(ROOT / "README.md", text))) is dead
