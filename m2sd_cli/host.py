"""The computer that this process runs on: its chip, and the cores and memory that it may use."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def cpu_model() -> str:
    """Return the name of the CPU that the kernel has; empty where it is not known."""
    models = (value for name, value in _fields(PROC / "cpuinfo") if name == "model name")
    return next(models, "") or platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_limit() -> float | None:
    """Return the number of cores whose time the control groups of this process allow; None for no limit."""
    shares = []
    for folder in _groups("cpu"):
        words = (_text(folder / "cpu.max") or "").split()  # of version 2
        if not words:
            words = [_text(folder / f"cpu.cfs_{each}_us") or "" for each in ("quota", "period")]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            shares.append(int(words[0]) / int(words[1]))
    return min(shares, default=None)


def memory() -> tuple[int, int] | None:
    """Return the memory of the computer and the part of it that is free for a new process, in bytes; None if unknown.

    Where the control groups of this process allow less, as in a container, both are theirs.
    """
    known = {name: int(value.split()[0]) * 1024 for name, value in _fields(PROC / "meminfo") if value.endswith("kB")}
    if not {"MemTotal", "MemAvailable"} <= known.keys():
        return None
    total, free = known["MemTotal"], known["MemAvailable"]
    for folder in _groups("memory"):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            words = [_text(folder / limit) or "", _text(folder / usage) or ""]
            if all(word.isdecimal() for word in words):
                allowed, used = map(int, words)
                parts = dict(_fields(folder / "memory.stat", " "))
                cached = int(parts.get("file") or parts.get("total_cache") or 0)  # of version 2 or 1
                shared = int(parts.get("shmem") or parts.get("total_shmem") or 0)  # files in memory alone
                total, free = min(total, allowed), min(free, max(0, allowed - used + cached - shared))
    return total, free


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, innermost first, of version 2 or 1."""
    for line in (_text(PROC / "self/cgroup") or "").splitlines():
        number, names, path = line.split(":", 2)
        if number != "0" and controller not in names.split(","):
            continue
        root = CGROUP if number == "0" else CGROUP / controller
        group = root / path.lstrip("/")
        yield group
        yield from (each for each in group.parents if each.is_relative_to(root))


def _fields(path: Path, separator: str = ":") -> Iterator[tuple[str, str]]:
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(separator)
        yield name.strip(), value.strip()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
