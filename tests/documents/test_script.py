"""The script that makes tables and outputs anew."""

from pathlib import Path

import pytest

from tests.documents import __main__ as script
from tests.documents.markdown import Document
from tests.documents.tables import make_table

TEXT = """# Document

<!-- table: exit codes -->
| old |
<!-- /table -->

Between.

<!-- prints: m2sd --version -->
```text
0.0.1
```
"""


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    monkeypatch.setattr(script, "documents", lambda: [Document(path, path.read_text())])
    return path


def test_it_tells_what_differs_and_mends_it_when_asked(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 1
    assert document.read_text() == TEXT
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["table: exit codes", "prints: m2sd --version"]
    assert script.main(["--write"]) == 0
    written = document.read_text()
    assert make_table("exit codes") in written
    assert "0.0.1" not in written
    assert written.count("\n") == TEXT.count("\n") + make_table("exit codes").count("\n") - 1
    capsys.readouterr()
    assert script.main([]) == 0
    assert capsys.readouterr().out == ""


def test_a_document_that_there_is_not_is_refused(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["README"]) == 2
    assert "choose" in capsys.readouterr().err
