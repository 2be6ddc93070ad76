"""Launcher of a command, which prints the command's exit code, time and peak memory as JSON.

It runs as a program of its own with few imports. On Linux the peak resident set of a process begins with its parent's:
the child of a process that has imported torch would seem to need as much memory.
"""

import json
import os
import subprocess
import sys
import time

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss


def launch(words: list[str]) -> dict[str, float | int | None]:
    """Run a command to its end, and drop its stdout."""
    began = time.perf_counter()
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603
    peak = None
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * UNIT
    else:
        child.wait()
        seconds = time.perf_counter() - began
    return {"code": child.returncode, "seconds": seconds, "peak_resident_bytes": peak}


if __name__ == "__main__":
    print(json.dumps(launch(sys.argv[1:])))
