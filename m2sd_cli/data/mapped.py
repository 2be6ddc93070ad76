"""Images in a file that is mapped into memory; few of its pages stay resident."""

import mmap
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from m2sd_cli.reading import open_regular

RESIDENT = 256 * 2**20  # bytes; a file of no more may stay in memory


def npy_header(dtype: type[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the bytes with which a .npy file of such an array begins."""
    header = BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


class MappedImages:
    """The images of a .npy file as a tensor over the file's pages.

    Pages that were read count as memory of the process until they are released. They then stay in the system's file
    cache, for as long as no process needs the memory.

    Args:
        path: the file, (N, S, S, 3) uint8.
        shape: that the array has to have.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is no such array, or not whole.
    """

    tensor: Tensor  # (N, S, S, 3) uint8; writing to it would end the process

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        header = npy_header(np.uint8, shape)
        with open_regular(path) as file:
            size = len(header) + np.prod(shape)
            if file.read(len(header)) != header or os.fstat(file.fileno()).st_size != size:
                raise ValueError(f"{path}: not an array of {shape} bytes")
            # Not copy-on-write: the kernel reserves memory for private pages that may be written to.
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = np.ndarray(shape, np.uint8, self._pages, len(header))
        self.tensor = torch.from_numpy(np.asarray(_Unguarded(array)))
        self._large = len(self._pages) > RESIDENT

    def take(self, indices: Tensor) -> Tensor:
        """Copy the images at `indices` (B,) into memory."""
        images = self.tensor.index_select(0, indices)
        self._release_if_large()
        return images

    def to(self, device: torch.device) -> Tensor:
        """Copy all images to another device."""
        images = torch.empty_like(self.tensor, device=device)
        step = max(1, RESIDENT * len(images) // max(1, images.nbytes))
        for start in range(0, len(images), step):
            part = images[start : start + step]
            part.copy_(self.tensor[start : start + step])
            self._release_if_large()
        return images

    def release(self) -> None:
        """Release the pages that were read. The tensor stays valid: a page comes back when it is read again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # Windows takes pages back by itself
            self._pages.madvise(mmap.MADV_DONTNEED)

    def _release_if_large(self) -> None:
        # After each read, since the number of mapped pages is unknown: the kernel maps up to megabytes around a page.
        if self._large:
            self.release()


class _Unguarded:
    """A read-only array that claims to be writable, as torch takes no other without a warning."""

    def __init__(self, array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
        self.array = array  # keeps the mapping alive as long as a tensor is made of it
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}
