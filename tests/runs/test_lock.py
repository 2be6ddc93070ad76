"""One writer at a time, and who that is: with real processes."""

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from m2sd_cli.errors import RunError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.lock import WRITER, lock_folder

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

# A forked process needs no second to import torch.
FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking beside threads


@dataclass(frozen=True)
class Holder:
    """A process that holds the lock of a run until it is released or killed."""

    process: "ForkProcess"
    release: Event


def hold(run: Path, held: Event, release: Event) -> None:
    """Hold the lock of a run, in a process of its own."""
    with lock_folder(run, "distill"):
        held.set()
        release.wait()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Holder]:
    """Begin a process that writes to the run."""
    held, release = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "run", held, release))
    process.start()
    assert held.wait(60)
    yield Holder(process, release)
    process.kill()
    process.join()


def write(run: Path) -> None:
    with RunFolder(run).locked("increment"):
        pass


def test_the_second_is_told_who_the_first_is(other: Holder, tmp_path: Path) -> None:
    message = (
        rf"run: m2sd distill \(process {other.process.pid}, since .* UTC\) is writing to it; wait until that has ended"
    )
    with pytest.raises(RunError, match=message) as raised:
        write(tmp_path / "run")
    assert raised.value.exit_code == 4
    other.process.terminate()
    other.process.join()
    write(tmp_path / "run")


def test_the_lock_of_a_killed_process_is_no_lock(other: Holder, tmp_path: Path) -> None:
    other.process.kill()
    other.process.join()
    assert (tmp_path / "run" / WRITER).is_file()
    write(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"process": 2**22 + 1},  # more than Linux gives out
        {"process": -1},
        {"process": 10**30},
        {"command": 7},
        {"surprise": "\x1b[2J"},
    ],
)
def test_a_false_or_stale_name_is_not_repeated(other: Holder, tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "run" / WRITER
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(RunError, match="run: another m2sd command is writing to it"):
        write(tmp_path / "run")
    path.unlink()
    with pytest.raises(RunError, match="another m2sd command"):
        write(tmp_path / "run")
    os.mkfifo(path)
    with pytest.raises(RunError, match="another m2sd command"):
        write(tmp_path / "run")
    path.unlink()


def test_a_process_of_another_machine_is_named_with_it(other: Holder, tmp_path: Path) -> None:
    path = tmp_path / "run" / WRITER
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"host": "elsewhere", "process": 12}))
    with pytest.raises(RunError, match=r"m2sd distill \(process 12 on elsewhere, since"):
        write(tmp_path / "run")


def test_who_waits_goes_on_in_the_folder_that_the_first_has_taken_away(other: Holder, tmp_path: Path) -> None:
    ending = threading.Timer(0.3, other.release.set)
    ending.start()
    with lock_folder(tmp_path / "run", "ablation", patience=60):
        assert (tmp_path / "run" / WRITER).is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_leaves_no_trace_where_it_wrote_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    write(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
