"""The folder of decoded images: its path, its entries, their locks, and clearing it."""

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from m2sd_cli.errors import DataError
from m2sd_cli.paths import environment_path, user_cache
from m2sd_cli.reading import read_regular

CACHE_VARIABLE = "M2SD_CACHE"
RECORD = "entry.json"  # of an entry: images, side, use
RECORD_LIMIT = 2**16  # bytes
UNFINISHED = ".tmp"
_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class CacheEntry:
    """An entry as `m2sd data list` shows it."""

    use: str  # training or test
    images: int
    side: int  # of each image, in pixels
    bytes: int


def cache_folder() -> Path:
    """Return the folder of decoded images: $M2SD_CACHE, else in the platform's cache folder."""
    return environment_path(CACHE_VARIABLE) or user_cache(CACHE_VARIABLE) / "images"


def list_entries() -> list[CacheEntry]:
    """List the finished entries, in no particular order."""
    entries = []
    for key in _keys(cache_folder()):
        folder = cache_folder() / key
        try:
            record = read_record(folder)
        except (OSError, ValueError):
            continue  # being cleared, or damaged and as good as absent
        use, images, side = (record.get(name) for name in ("use", "images", "side"))
        # Not isinstance: true is an int, too.
        if use in ("training", "test") and type(images) is int and type(side) is int:
            entries.append(CacheEntry(use, images, side, _bytes(folder)))
    return entries


def read_record(folder: Path) -> dict[str, object]:
    """Read the record of an entry, which may hold anything.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is damaged.
    """
    try:
        record = json.loads(read_regular(folder / RECORD, RECORD_LIMIT))
    except RecursionError:
        raise ValueError(f"{folder}: a record of such depth is nobody's") from None
    if not isinstance(record, dict):
        raise ValueError(f"{folder}: not a record")
    return record


def clear() -> tuple[int, int]:
    """Remove every entry but those that are being built. A training that reads one goes on undisturbed.

    Returns:
        The number of removed entries, and the bytes that they and the remains of broken-off builds took.

    Raises:
        DataError: an entry cannot be removed.
    """
    cache = cache_folder()
    entries = freed = 0
    for key in _keys(cache):
        try:
            with entry_lock(cache, key, wait=False):
                for folder in (cache / key, unfinished_folder(cache, key)):
                    if folder.is_dir():
                        size = _bytes(folder)
                        shutil.rmtree(folder)
                        freed += size
                        entries += folder.name == key
        except Timeout:
            continue
        except OSError as error:
            raise DataError(f"{error.filename or cache}: cannot be removed ({error.strerror or error})") from None
    return entries, freed


def entry_lock(cache: Path, key: str, wait: bool = True) -> FileLock:
    """Make the lock under which an entry is built or removed, for a `with` statement.

    The lock of a process that died is no lock. The lock's empty file stays: a process that waits for it must not be
    left with one that the next process does not see. Where another process has the lock and `wait` is false, entering
    raises Timeout.
    """
    return FileLock(cache / f"{key}.lock", timeout=-1 if wait else 0)


def unfinished_folder(cache: Path, key: str) -> Path:
    """Return the folder in which an entry is built."""
    return cache / f"{key}{UNFINISHED}"


def sweep(cache: Path, locked_key: str) -> None:
    """Remove the remains of builds that were killed. The caller has locked the entry `locked_key`."""
    for key in _keys(cache):
        folder = unfinished_folder(cache, key)
        if not folder.exists():
            continue
        if key == locked_key:
            shutil.rmtree(folder)
            continue
        try:
            with entry_lock(cache, key, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue


def as_size(count: int) -> str:
    """Write a number of bytes as a person reads it."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}" if amount < 100 else f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _keys(cache: Path) -> list[str]:
    """List the keys of entries, finished or not; other names in the folder are left alone."""
    try:
        with os.scandir(cache) as entries:
            names = {each.name.removesuffix(UNFINISHED) for each in entries if each.is_dir(follow_symlinks=False)}
    except OSError:
        return []
    return sorted(name for name in names if _KEY.fullmatch(name))


def _bytes(folder: Path) -> int:
    """Sum the sizes of the files in a folder and below it; a file that is removed meanwhile counts as 0."""
    size = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
