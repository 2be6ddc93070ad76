"""The table of the commands."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from m2sd_cli.cli.commands import COMMANDS, Entry, build_command
from m2sd_cli.registry import load
from tests.helpers import Cli


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A command of a module of its own, and its entry."""
    (tmp_path / "greeting.py").write_text(
        "def greet(name: str, loud: bool = False) -> None:\n"
        "    'Greet somebody.'\n"
        "    print(name.upper() if loud else name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "greet", Entry("greeting:greet", "Greet one person."))
    yield
    sys.modules.pop("greeting", None)


@pytest.mark.usefixtures("added")
def test_a_module_and_an_entry_make_a_command(m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\n  greet      Greet one person.\n" in m2sd("--help").out
    assert "greeting" not in sys.modules
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "m2sd gr")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert m2sd().out.split() == ["greet"]
    assert "greeting" not in sys.modules
    monkeypatch.delenv("_M2SD_COMPLETE")
    assert "Greet somebody." in m2sd("greet", "--help").out
    assert m2sd("greet", "heron", "--loud").out == "HERON\n"


@pytest.mark.usefixtures("added")
def test_torchrun_runs_what_the_table_says(m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("RANK", "0")
    done = m2sd("greet", "heron")
    assert (done.code, done.err) == (2, "m2sd: m2sd greet: it runs as one process; begin it without torchrun\n")
    monkeypatch.setitem(COMMANDS, "greet", Entry("greeting:greet", "Greet one person.", distributed=True))
    assert m2sd("greet", "heron").out == "heron\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_entry_is_of_a_module_of_the_same_name(name: str) -> None:
    module, _, _ = COMMANDS[name].target.partition(":")
    assert module == f"m2sd_cli.cli.{name}"
    assert len(COMMANDS[name].help) <= 80 - len("  increment  ")
    assert isinstance(load(COMMANDS[name].target), typer.Typer) or build_command(name).name == name
