"""Opening and quoting files that anybody may have written: only what is a file, only as much as makes sense."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

QUOTED = 80  # characters


def open_regular(path: Path, follow: bool = True) -> BufferedReader:
    """Open a regular file without ever waiting for a pipe's other end.

    Args:
        path: the file.
        follow: whether it may be a link to one.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    kind = 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, os.O_RDONLY | kind | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes; never more than that is read.

    Raises:
        OSError: as `open_regular` does, or it is larger.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return content


def quoted(text: str) -> str:
    """A text from a file as a message can hold it, whatever its length."""
    return text if len(text) <= QUOTED else text[:QUOTED] + "..."
