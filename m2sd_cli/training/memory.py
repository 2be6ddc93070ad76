"""Keeping the memory that a training frees for its next step."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# mallopt(3) of glibc
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1  # bytes
DYNAMIC_LIMIT = 32 << 20  # bytes, up to which glibc raises MMAP_THRESHOLD by itself


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Have glibc keep freed memory for a training on the CPU, and give it back to the system at the end.

    Other C libraries and devices are left alone.
    """
    # glibc maps each block of more than 32 MB anew, and the system hands it out page by page. For the maps of a batch
    # at full resolution this costs more time than the computation on them.
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_THRESHOLD, NEVER)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        library.mallopt(MMAP_THRESHOLD, DYNAMIC_LIMIT)
        library.mallopt(TRIM_THRESHOLD, 2 * DYNAMIC_LIMIT)
        library.malloc_trim(0)
