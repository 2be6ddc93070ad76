"""The folder of decoded images: its place, its entries, who is writing, and clearing it."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from m2sd_cli.errors import DataError
from m2sd_cli.reading import read_regular

CACHE_VARIABLE = "M2SD_CACHE"
RECORD = "entry.json"  # of an entry: images, side, use
RECORD_LIMIT = 2**16  # bytes
UNFINISHED = ".tmp"
_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Listed:
    """An entry as it is listed."""

    use: str  # training or test
    images: int
    side: int  # of each image, in pixels
    bytes: int


def cache_folder() -> Path:
    """Where decoded images are kept: $M2SD_CACHE, else in the platform's cache folder."""
    from platformdirs import user_cache_path

    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else user_cache_path("m2sd") / "images"


def list_entries() -> list[Listed]:
    """The finished entries, in no particular order."""
    found = []
    for key in _keys(cache_folder()):
        folder = cache_folder() / key
        try:
            record = read_record(folder)
        except (OSError, ValueError):
            continue  # being cleared, or damaged and as good as absent
        use, images, side = (record.get(name) for name in ("use", "images", "side"))
        # Of the very type, as true is an int, too.
        if use in ("training", "test") and type(images) is int and type(side) is int:
            found.append(Listed(use, images, side, _bytes(folder)))
    return found


def read_record(folder: Path) -> dict[str, object]:
    """What an entry says of itself; anybody may have written it.

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
        How many entries were removed, and how many bytes they and the remains of broken-off builds took.

    Raises:
        DataError: one cannot be removed.
    """
    place = cache_folder()
    entries = freed = 0
    for key in _keys(place):
        try:
            with locked(place, key, wait=False):
                for folder in (place / key, unfinished(place, key)):
                    if folder.is_dir():
                        taken = _bytes(folder)
                        shutil.rmtree(folder)
                        freed += taken
                        entries += folder.name == key
        except Timeout:
            continue
        except OSError as error:
            raise DataError(f"{error.filename or place}: cannot be removed ({error.strerror or error})") from None
    return entries, freed


@contextmanager
def locked(place: Path, key: str, wait: bool = True) -> Iterator[None]:
    """Be the only one who builds or removes an entry; the lock of a process that died is no lock.

    The lock's empty file stays: whoever waits for it must not be left with one that the next comer does not see.

    Raises:
        Timeout: somebody else has it, and `wait` is false.
    """
    with FileLock(place / f"{key}.lock", timeout=-1 if wait else 0):
        yield


def unfinished(place: Path, key: str) -> Path:
    """Where an entry is built."""
    return place / f"{key}{UNFINISHED}"


def sweep(place: Path, own: str) -> None:
    """Remove what builds that were killed have left. The caller has locked the entry `own`."""
    for key in _keys(place):
        folder = unfinished(place, key)
        if not folder.exists():
            continue
        if key == own:
            shutil.rmtree(folder)
            continue
        try:
            with locked(place, key, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue


def as_size(count: int) -> str:
    """Bytes as a person reads them."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}" if amount < 100 else f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _keys(place: Path) -> list[str]:
    """Of the entries there are, finished or not; whatever else lies there is somebody else's."""
    try:
        with os.scandir(place) as inside:
            names = {each.name.removesuffix(UNFINISHED) for each in inside if each.is_dir(follow_symlinks=False)}
    except OSError:
        return []
    return sorted(name for name in names if _KEY.fullmatch(name))


def _bytes(folder: Path) -> int:
    """What the files in a folder and below it take, as far as they are still there."""
    taken = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                taken += os.lstat(os.path.join(parent, name)).st_size
    return taken
