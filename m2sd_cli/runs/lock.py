"""The lock of a folder: it has one writer at a time, whose command the others are told."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from m2sd_cli.errors import DamagedError, LockedError, RunError
from m2sd_cli.runs.files import read_bounded
from m2sd_cli.runs.manifest import Record

LOCK = ".lock"
WRITER = ".writer.json"
WRITER_LIMIT = 4096  # bytes


class Writer(Record):
    """The process that has the lock, for messages alone: a killed process leaves this record behind."""

    command: str
    process: Annotated[int, Field(ge=1)]
    host: str
    since: str  # UTC

    @property
    def may_live(self) -> bool:
        """True if the process may still run, as one of another machine always may."""
        if self.host != socket.gethostname() or os.name == "nt":
            return True
        try:
            os.kill(self.process, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    def __str__(self) -> str:
        host = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"m2sd {self.command} (process {self.process}{host}, since {self.since} UTC)"


@contextmanager
def lock_folder(folder: Path, command: str, patience: float = 0.0) -> Iterator[None]:
    """Be the only writer to a folder, which is made if it is missing, and removed again if it stays empty.

    The lock of a process that died is no lock.

    Args:
        folder: the folder.
        command: that writes, for messages of others.
        patience: seconds to wait for another writer; below 0 for as long as it takes.

    Raises:
        LockedError: another process is writing.
        RunError: the folder cannot be made.
    """
    lock = FileLock(folder / LOCK, timeout=patience)
    try:
        try:
            new_folders = _acquire(lock, folder)
        except FileNotFoundError:  # the last writer wrote nothing, and has removed the folder
            new_folders = _acquire(lock, folder)
    except Timeout:
        raise LockedError(f"{folder}: {_holder(folder)} is writing to it; wait until that has ended") from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be written to ({error.strerror or error})") from None
    try:
        _sign(folder / WRITER, command)
        yield
    finally:
        with suppress(OSError):
            (folder / WRITER).unlink(missing_ok=True)
            if os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()  # while it is held, so that a process that waits for it finds it gone
                for path in new_folders:
                    path.rmdir()
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> list[Path]:
    """Make the folder and take its lock; return the folders that were made, innermost first."""
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    return new_folders


def _sign(path: Path, command: str) -> None:
    writer = Writer(
        command=command,
        process=os.getpid(),
        host=socket.gethostname(),
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    )
    with suppress(OSError):  # it serves messages alone, and no work is refused for it
        path.unlink(missing_ok=True)
        path.write_bytes(writer.model_dump_json().encode())


def living_writer(folder: Path) -> str | None:
    """Name the process that writes to a folder, without touching the lock that it may want; None if none is known."""
    try:
        writer = Writer.model_validate_json(read_bounded(folder / WRITER, WRITER_LIMIT))
    except (OSError, DamagedError, ValidationError):
        return None
    return str(writer) if writer.may_live else None


def _holder(folder: Path) -> str:
    """Name the process that holds the lock, as far as that is known."""
    return living_writer(folder) or "another m2sd command"
