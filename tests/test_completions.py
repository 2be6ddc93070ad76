"""The completion scripts match what the app itself would install."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer._completion_shared import get_completion_script

SCRIPTS = {"bash": "m2sd.bash", "zsh": "_m2sd", "fish": "m2sd.fish"}
FOLDER = Path(__file__).parent.parent / "completions"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_script_is_the_one_of_the_app(shell: str) -> None:
    expected = get_completion_script(prog_name="m2sd", complete_var="_M2SD_COMPLETE", shell=shell)
    assert (FOLDER / SCRIPTS[shell]).read_text(encoding="utf-8").strip() == expected.strip()


def test_there_is_no_other_script() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SCRIPTS.values())


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("m2sd pre", "predict"),
        ("m2sd be", "bench"),
        ("m2sd --version pre", "predict"),
        ("m2sd distill --kd", "--kd-weight"),
        ("m2sd distill --epochs 3 --kd", "--kd-weight"),
        ("m2sd sessions --run somewhere un", "undo"),
        ("m2sd sessions undo --y", "--yes"),
    ],
)
def test_bash_completes(typed: str, wanted: str, m2sd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    done = m2sd()
    assert wanted in done.out.split()
    assert all(word.startswith(typed.split()[-1]) for word in done.out.split())
