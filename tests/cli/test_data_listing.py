"""Data sets are listed in a moment, since torch is not imported for it."""

import subprocess
import sys

import pytest

LIST = """
import sys
from m2sd_cli.cli.app import main
try:
    main()
finally:
    assert not {"torch", "torchvision", "numpy"} & set(sys.modules)
"""


@pytest.mark.parametrize("words", [["data"], ["data", "list", "--json"]])
def test_the_list_of_data_sets_needs_no_torch(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIST, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, "cifar100" in done.stdout) == (0, True), done.stderr
