"""The end of processes that torchrun began."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
atexit.register(print, "taken down")
from m2sd_cli.__main__ import main
main()
"""


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["--wrong"], 2)])
@pytest.mark.parametrize("launched", [False, True])
def test_a_process_of_torchrun_ends_before_python_is_taken_down(words: list[str], code: int, launched: bool) -> None:
    environment = {**os.environ, **({"TORCHELASTIC_RUN_ID": "none", "RANK": "0"} if launched else {})}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert ("taken down" in done.stdout) != launched
    assert done.stdout.replace("taken down\n", "").strip() or done.stderr  # what was said was said
