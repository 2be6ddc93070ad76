"""One writer at a time, and who that is: with real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2sd_cli.errors import RunError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.lock import WRITER, lock_folder

HOLD = """
import sys
from pathlib import Path
from m2sd_cli.runs.lock import lock_folder
with lock_folder(Path(sys.argv[1]), "distill"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes to the run."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def write(run: Path) -> None:
    with RunFolder(run).locked("increment"):
        pass


def test_the_second_is_told_who_the_first_is(other: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    message = rf"run: m2sd distill \(process {other.pid}, since .* UTC\) is writing to it; wait until that has ended"
    with pytest.raises(RunError, match=message) as raised:
        write(tmp_path / "run")
    assert raised.value.exit_code == 4
    other.terminate()
    other.wait()
    write(tmp_path / "run")


def test_the_lock_of_a_killed_process_is_no_lock(other: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
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
def test_a_false_or_stale_name_is_not_repeated(
    other: "subprocess.Popen[bytes]", tmp_path: Path, change: dict[str, object]
) -> None:
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


def test_a_process_of_another_machine_is_named_with_it(other: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    path = tmp_path / "run" / WRITER
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"host": "elsewhere", "process": 12}))
    with pytest.raises(RunError, match=r"m2sd distill \(process 12 on elsewhere, since"):
        write(tmp_path / "run")


def test_who_waits_goes_on_in_the_folder_that_the_first_has_taken_away(
    other: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    assert other.stdin is not None
    ending = threading.Timer(0.3, other.stdin.close)
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
