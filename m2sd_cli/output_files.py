"""Files that a person asks for: a regular file appears whole or not at all, a pipe or a device is written into."""

import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from m2sd_cli.errors import RunError, UsageError, os_errors_as
from m2sd_cli.runs.files import UNFINISHED, sync_folder, write_atomically
from m2sd_cli.runs.folder import RunFolder

STDOUT: Final = "-"
REMADE: Final = frozenset({"__pycache__", ".DS_Store", "Thumbs.db", "desktop.ini"})  # by Python and file managers


def check_output(option: str, path: Path, run: RunFolder, replace: bool = True) -> None:
    """Refuse an output that cannot be written, before any work is done for it.

    Args:
        option: that names it, for messages.
        path: the file; `-` is stdout.
        run: the run folder, whose own files are refused.
        replace: overwrite a regular file that exists already.

    Raises:
        UsageError: the file cannot be written, or must not be.
    """
    if is_special(path):
        return
    _require_nameable(option, path)
    if path.is_dir():
        raise UsageError(f"{option} {path}: it is a folder; name a file")
    if run.owns(path):
        raise UsageError(f"{option} {path}: that is a file of the run; name another one")
    if path.exists() and not replace:
        raise UsageError(f"{option} {path}: it exists already; --force replaces it")
    require_writable(option, path, _place(path).parent)


def check_output_folder(option: str, path: Path, run: RunFolder) -> None:
    """Refuse an output folder that cannot be made or must not be written into, before any work is done for it.

    Args:
        option: that names it, for messages.
        path: the folder, which may exist.
        run: the run folder, whose own folders are refused.

    Raises:
        UsageError: the folder cannot be used.
    """
    if is_special(path):
        raise UsageError(f"{option} {path}: it has to be a folder; name one")
    _require_nameable(option, path)
    if os.path.lexists(path) and not path.is_dir():
        raise UsageError(f"{option} {path}: it is a file; name a folder")
    if run.owns(path / "file"):
        raise UsageError(f"{option} {path}: that is a folder of the run; name another one")
    require_writable(option, path, path if path.is_dir() else path.parent)


def check_new_folder(option: str, path: Path, run: RunFolder, names: Collection[str], replace: bool = False) -> None:
    """Refuse a folder that is to be written as a whole, before any work is done for it.

    Args:
        option: that names it, for messages.
        path: the folder, which may exist if it is empty.
        run: the run folder, whose own folders are refused.
        names: of the files that it may hold if it is to be replaced: nothing else in it is ever removed, but for the
            names REMADE.
        replace: replace a folder of such files.

    Raises:
        UsageError: the folder cannot be used.
    """
    check_output_folder(option, path, run)
    require_writable(option, path, path.resolve().parent)
    if run.owns(path):
        raise UsageError(f"{option} {path}: that is a name of the run's own files; name another folder")
    if path.is_dir() and path.samefile(os.curdir):  # which would be gone for the shell, and could not be listed
        raise UsageError(f"{option} {path}: it is the current folder; name another one, or begin in another one")
    with os_errors_as(UsageError, f"{option} {path}: it cannot be listed"):
        held = sorted(os.listdir(path)) if path.is_dir() else []
    if held and not replace:
        raise UsageError(f"{option} {path}: it exists already, and is not empty; --force replaces it")
    kept = [name for name in held if name not in REMADE]
    if others := [name for name in kept if name not in names or not (path / name).is_file()]:
        raise UsageError(f"{option} {path}: it holds more than such a folder does, {others[0]}; name another one")


def write_output_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder as a whole: it is made under another name beside its place, and renamed at the end.

    Args:
        path: the folder, which `check_new_folder` has accepted.
        files: content by name.

    Raises:
        RunError: it cannot be written; the folder that was there before is left as it was.
    """
    place = path.resolve()
    coming, going = (place.with_name(f".{place.name}.{secrets.token_hex(4)}{UNFINISHED}") for _ in range(2))
    try:
        with os_errors_as(RunError, f"{path}: could not be written"):
            coming.mkdir()
            for name, content in files.items():
                write_atomically(coming / name, content)
            if place.is_dir():
                os.rename(place, going)
            os.rename(coming, place)
            sync_folder(place.parent)
    finally:
        if going.is_dir() and not os.path.lexists(place):  # an error or Ctrl-C came between the renames
            os.rename(going, place)
        for folder in (coming, going):
            shutil.rmtree(folder, ignore_errors=True)


def _require_nameable(option: str, path: Path) -> None:
    """Refuse a name at which the system can have no file: too long, behind a closed folder, or a link to itself.

    Raises:
        UsageError: the system can have no file there.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"{option} {path}: it cannot be used ({error.strerror or error}); name another") from None


def require_writable(option: str, path: Path, folder: Path) -> None:
    """Refuse an output in a folder that is not there, or that cannot be written to.

    Raises:
        UsageError: it is not there, or cannot be written to.
    """
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: no such folder as {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: {folder} cannot be written to; name another folder")


def _place(path: Path) -> Path:
    """Return the place of a file: that behind a link, which stays."""
    return path.resolve() if path.is_symlink() else path


def make_output_folder(path: Path) -> None:
    """Make a folder that a person asked for, unless it is there.

    Raises:
        RunError: the folder cannot be made.
    """
    with os_errors_as(RunError, f"{path}: could not be made"):
        path.mkdir(exist_ok=True)


def write_output(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file that a person asked for.

    A regular file is replaced as a whole; a link stays, and the file behind it is replaced. A device, a pipe and stdout
    are written into: a rename would put a file in their place.

    Args:
        path: the file; `-` is stdout.
        content: whole, or piece by piece.

    Raises:
        RunError: the file cannot be written.
        BrokenPipeError: the reader of a pipe has left.
    """
    if not is_special(path):
        write_atomically(_place(path), content)
        return
    try:
        with _opened(path) as stream:
            for piece in [content] if isinstance(content, bytes) else content:
                stream.write(piece)
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"{path}: could not be written ({error.strerror or error})") from None


def is_special(path: Path) -> bool:
    """Tell whether a path is stdout, or neither a regular file nor a folder, such as a device or a pipe."""
    if str(path) == STDOUT:
        return True
    try:
        status = os.stat(path)
    except OSError:
        return False
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return True
    return _is_stdout(status)


def is_stdout(path: Path) -> bool:
    """Tell whether a file is where stdout goes."""
    return str(path) == STDOUT or (path.exists() and _is_stdout(os.stat(path)))


def _is_stdout(status: os.stat_result) -> bool:
    try:
        return os.path.samestat(status, os.fstat(1))
    except OSError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if is_stdout(path):
        if sys.stdout is None:
            raise OSError("stdout is closed")
        sys.stdout.flush()
        yield sys.stdout.buffer  # another handle of the same file would overwrite the output so far
    else:
        with open(path, "wb") as stream:
            yield stream
