"""Commands whose output or whose notes cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import PATIENCE

ROOT = Path(__file__).parent.parent.parent
PROGRAM = f"{sys.executable} -m m2sd_cli"
needs_full = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in which M2SD stands for the program; its own stdout and stderr are pipes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["bash", "-c", f"set -o pipefail; {line.replace('M2SD', PROGRAM)}"]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)


@pytest.mark.parametrize("command", ["recipes", "recipes show cifar100-resnet20", "--help", "data list --json"])
def test_a_reader_that_leaves_ends_it_quietly(command: str) -> None:
    done = shell(f"M2SD {command} | true")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(f"M2SD {command} | head -n 1").returncode == 0


@needs_full
@pytest.mark.parametrize("command", ["recipes", "data list --json", "--help", "--version"])
def test_a_full_stdout_is_one_line(command: str) -> None:
    done = shell(f"M2SD {command} >/dev/full")
    assert done.stderr == "m2sd: stdout: the result cannot be written (No space left on device)\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["recipes", "data list --json"])
def test_a_closed_stdout_is_one_line(command: str) -> None:
    done = shell(f"M2SD {command} >&-")
    assert (done.returncode, done.stderr) == (1, "m2sd: stdout is closed: the result cannot be written\n")


@pytest.mark.parametrize("where", ["2>&-", pytest.param("2>/dev/full", marks=needs_full)])
def test_notes_that_cannot_be_written_spoil_no_result(where: str, trained: Path, stripes: object) -> None:
    test = vars(stripes)["labelled"]
    done = shell(f"M2SD evaluate --run {trained} --test {test} --device cpu --json {where}")
    assert done.returncode == 0
    assert json.loads(done.stdout)["classifier"] == "fecam"
    done = shell(f"M2SD sessions list --run {trained}/none {where}")
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize("where", ["2>&- >&-", pytest.param("2>/dev/full", marks=needs_full)])
def test_a_training_does_not_depend_on_its_log(where: str, stripes: object, tmp_path: Path) -> None:
    options = "--image-size 16 --backbone resnet20 --epochs 1 --batch-size 8 --device cpu --precision fp32"
    folder, run = vars(stripes)["folder"], tmp_path / "run"
    done = shell(f"M2SD pretrain --data {folder} --run {run} {options} {where}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (run / "pretrain.json").is_file()


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    program = (
        "from m2sd_cli.cli.streams import open_missing_streams, write_note; open_missing_streams(); "
        f"file = open({str(tmp_path / 'file')!r}, 'w'); write_note('note'); file.close()"
    )
    done = shell(f'{sys.executable} -c "{program}" 2>&- <&- >&-')
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""
