"""Freed memory stays at hand during a training, and goes back to the system after it."""

import platform
import subprocess
import sys

import pytest
import torch

from m2sd_cli.training.memory import freed_memory_kept

PROGRAM = """
import resource, sys
import torch
from m2sd_cli.training.memory import freed_memory_kept

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(16 << 20).add_(1)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

faults(1)
small = resident()
loose = faults(4)
with freed_memory_kept(torch.device("cpu")):
    faults(8)  # the library needs a few rounds to find room for blocks that begin at aligned places
    kept = faults(4)
    held = resident()
print(loose, kept, held - small, resident() - small)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_blocks_are_reused_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loose, kept, held, left = map(int, done.stdout.split())
    assert kept < loose / 10, "each block was mapped anew"
    assert held > 48, "MB: nothing was kept"
    assert left < 16, "MB: it was not given back"


def test_other_devices_and_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.training.memory.ctypes.CDLL", lambda name: pytest.fail("the C library was asked"))
    with freed_memory_kept(torch.device("cuda")):
        pass
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with freed_memory_kept(torch.device("cpu")):
        pass
