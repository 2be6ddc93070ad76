"""The measured device: its name, waiting for it, and the memory in use."""

from collections.abc import Callable
from pathlib import Path

import torch

from m2sd_cli.host import cpu_model

_PROCESS = Path("/proc/self")


def device_name(device: torch.device) -> str:
    """Return the name of the chip, by its driver or the kernel."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_model()


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device, compute: Callable[[], object]) -> int | None:
    """Measure the most bytes in use during a computation: tensors on CUDA, the whole process on the CPU.

    Returns:
        None if it cannot be measured: Linux alone lets a process reset its peak.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        compute()
        return torch.cuda.max_memory_allocated(device)
    measured = device.type == "cpu" and _forget_peak_resident()
    compute()
    return _peak_resident() if measured else None


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
