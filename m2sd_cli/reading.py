"""Opening, quoting and showing files of any origin: regular files alone, and a limited part of them."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

QUOTED = 80  # characters


def open_regular(path: Path, follow: bool = True) -> BufferedReader:
    """Open a regular file without ever waiting for a pipe's other end.

    Args:
        path: the file.
        follow: accept a link to a regular file.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    links = 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, os.O_RDONLY | links | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; a larger one is not read to its end.

    Raises:
        OSError: as `open_regular` does, or it is larger.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return content


def read_toml(path: Path, limit: int) -> dict[str, Any]:
    """Read a TOML file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML; the message names the reason.
    """
    import tomllib

    content = read_regular(path, limit)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # Windows editors put a mark before the first line
    except (ValueError, RecursionError) as error:  # the first of TOML, of UTF-8 and of numbers of thousands of digits
        raise ValueError(f"not TOML ({quoted(str(error))})") from None


def quoted(text: str) -> str:
    """Shorten a text from a file to a length that a message can hold."""
    return text if len(text) <= QUOTED else text[:QUOTED] + "..."


def printable(text: str) -> str:
    """Escape the characters of a text that could steer a terminal, turn text around, hide or begin a line."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    code = ord(char)
    if char.isprintable():
        return char
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"
