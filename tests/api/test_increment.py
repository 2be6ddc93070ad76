"""Sessions that another process adds, removes or replaces while one is being taught."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
import m2sd_cli.api.increment as increment
from m2sd_cli.errors import RunError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes, tree

Meanwhile = Callable[[Callable[[], object]], dict[str, bytes | None]]


@pytest.fixture
def meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let something happen while shots are looked at; the run folder after it."""

    def happen(change: Callable[[], object]) -> dict[str, bytes | None]:
        shot_features: Any = vars(increment)["shot_features"]
        afterwards: dict[str, bytes | None] = {}

        def slow(*arguments: Any) -> Any:
            monkeypatch.setattr(increment, "shot_features", shot_features)
            change()
            afterwards.update(tree(run))
            return shot_features(*arguments)

        monkeypatch.setattr(increment, "shot_features", slow)
        return afterwards

    return happen


def test_a_session_added_meanwhile_is_not_overwritten(run: Path, stripes: Stripes, meanwhile: Meanwhile) -> None:
    RunFolder(run).remove_sessions(first=1)
    afterwards = meanwhile(lambda: m2sd_cli.increment(1, stripes.second_shots, run=run, device="cpu"))
    with pytest.raises(RunError, match="a session was added, removed or replaced meanwhile; try again"):
        m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    assert afterwards
    assert tree(run) == afterwards


def test_a_replaced_parent_stops_an_increment(run: Path, stripes: Stripes, meanwhile: Meanwhile) -> None:
    RunFolder(run).remove_sessions(first=2)

    def replace_parent() -> None:
        RunFolder(run).remove_sessions(first=1)
        m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")

    afterwards = meanwhile(replace_parent)
    with pytest.raises(RunError, match="replaced meanwhile"):
        m2sd_cli.increment(2, stripes.second_shots, run=run, device="cpu")
    assert afterwards
    assert tree(run) == afterwards


def test_a_hint_that_cannot_be_given_is_no_failure(run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli) -> None:
    RunFolder(run).remove_sessions(first=1)
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "white").symlink_to(stripes.first_shots / "white")
    done = m2sd("increment", "--run", run, "--shots", tmp_path / "shots", "--device", "cpu")
    assert done.code == 0, done.err
    assert "session 1: learned white (2); 5 classes now" in done.err
