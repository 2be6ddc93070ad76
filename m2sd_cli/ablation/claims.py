"""Which process sees to which run, so that several can share a table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from m2sd_cli.errors import RunError

CLAIMS: Final = ".claims"


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Whether a piece of work is this process's own until the end; if not, another one is at it.

    The claim of a process that died is no claim. The empty file behind it stays: to remove what others may be about to
    lock would let two of them have it.

    Args:
        folder: of the table, which is there.
        name: of the work, as a file may be called.

    Raises:
        RunError: the folder cannot be written to.
    """
    lock = FileLock(folder / CLAIMS / name, timeout=0)
    try:
        (folder / CLAIMS).mkdir(exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to ({error.strerror or error})") from None
    try:
        yield True
    finally:
        lock.release()
