"""The list that divides a folder into base images, sessions and test images; this module imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m2sd_cli.errors import DataError, os_errors_as
from m2sd_cli.reading import quoted, read_toml

LIST_LIMIT = 2**28  # bytes
BASE, TEST = "base", "test"
KEYS = (BASE, "sessions", TEST)


@dataclass(frozen=True)
class SplitList:
    """Paths below a folder: of images, or of folders that stand for all images in them."""

    base: tuple[str, ...]
    sessions: tuple[tuple[str, ...], ...]
    test: tuple[str, ...]

    def parts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the name and the paths of every part: base, the sessions, test."""
        yield BASE, self.base
        for number, paths in enumerate(self.sessions, start=1):
            yield f"session {number}", paths
        yield TEST, self.test


def read_list(path: Path) -> SplitList:
    """Read a list: TOML with `base` and `test`, lists of paths, and `sessions`, a list of such lists.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        with os_errors_as(DataError, f"--split {path}: cannot be read"):
            table = read_toml(path, LIST_LIMIT)
    except ValueError as error:
        raise DataError(f"--split {path}: {error}") from None
    unknown = next((key for key in table if key not in KEYS), None)
    if unknown is not None:
        raise DataError(f"--split {path}: only base, sessions and test are known, not {quoted(repr(unknown))}")
    sessions = table.get("sessions", [])
    lists = [table.get("base", []), table.get("test", []), *(sessions if isinstance(sessions, list) else [None])]
    if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists):
        raise DataError(f"--split {path}: base and test are lists of paths, and sessions is a list of such lists")
    base, test, *taught = (tuple(each) for each in lists)
    listed = SplitList(base, tuple(taught), test)
    empty = next((name for name, paths in listed.parts() if not paths and name != TEST), None)
    if empty is not None:
        raise DataError(f"--split {path}: no path in {empty}")
    return listed
