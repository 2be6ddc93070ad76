"""The device that is measured: its name, waiting for it, the memory that it takes."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def device_name(device: torch.device) -> str:
    """The chip, as its driver or the kernel calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device, compute: Callable[[], object]) -> int | None:
    """The most bytes in use while something is computed: tensors on CUDA, the whole process on the CPU.

    Returns:
        None where it cannot be watched: Linux alone lets a process forget the peak that it had before.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        compute()
        return torch.cuda.max_memory_allocated(device)
    watched = device.type == "cpu" and _forget_peak_resident()
    compute()
    return _peak_resident() if watched else None


def _forget_peak_resident() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_resident() -> int | None:
    try:
        status = (_PROCESS / "status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) * 1024 for words in lines), None)
