"""Paths as people and environments name them: `~` is the home folder, and an empty name is a mistake."""

import os
import re
from pathlib import Path
from typing import Final

from m2sd_cli.errors import DataError, UsageError

ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(?=[^/])")  # a drive of Windows has one letter


def expand(name: Path | str, source: str) -> Path:
    """Return the path of a given name.

    A shell expands a bare `~` itself, but not one behind `=`, in quotes, or in a variable. A file such as ~photo.jpg
    keeps its name, unless there is a user called so.

    Args:
        name: that was given.
        source: the option or variable that gave it, for messages.

    Raises:
        UsageError: the name is empty, as an unset shell variable is, or its home folder is unknown.
    """
    if not str(name):
        raise UsageError(f"{source}: an empty name; is a shell variable not set?")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        first, *below = Path(name).parts
        if first != "~" and (not below or os.path.lexists(first)):
            return Path(name)
        raise UsageError(f"{source} {name}: the home folder is not known; set HOME, or write the whole path") from None


def expand_given(name: Path | str | None, source: str) -> Path | None:
    """Return the path of a given name, as `expand` does; None if none was given.

    Raises:
        UsageError: as `expand` does.
    """
    return None if name is None else expand(name, source)


def text_given(name: Path | str | None) -> str | None:
    """Return a name, which may be given as a path, as text; None if none was given."""
    return None if name is None else str(name)


def refuse_address(name: Path | str, source: str = "") -> None:
    """Refuse an address of the web where a file or folder is expected.

    Args:
        name: that was given; a path has lost one of two slashes.
        source: the option that gave it, for messages.

    Raises:
        DataError: it is an address, and there is no such file or folder.
    """
    match = ADDRESS.match(str(name))
    if match and not os.path.lexists(name):
        if match[1].lower() == "file":
            raise DataError(
                f"{source}{' ' if source else ''}{name}: an address; name the path alone, without {match[1]}:"
            )
        address = f"{match[1]}://{str(name)[match.end() :]}"
        raise DataError(
            f"{source}{' ' if source else ''}{address}: an address, and no file or folder; download it first"
        )


def environment_path(variable: str) -> Path | None:
    """Return the path in an environment variable; None if it is unset or empty.

    Raises:
        UsageError: its home folder is unknown.
    """
    name = os.environ.get(variable)
    return expand(name, f"${variable}") if name else None


def user_cache(variable: str) -> Path:
    """Return the platform's cache folder for m2sd.

    Args:
        variable: that names another folder instead, for messages.

    Raises:
        UsageError: this user has no home folder, as in a container that runs as a bare number.
    """
    from platformdirs import user_cache_path

    try:
        return user_cache_path("m2sd").expanduser()  # older versions leave a ~ that they cannot expand
    except RuntimeError:
        raise UsageError(f"the home folder of this user is not known; set HOME or ${variable}") from None


def require_current_folder() -> None:
    """Refuse a current folder that was removed: every relative path leads there.

    Raises:
        UsageError: the current folder was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder is not there any more; go to another one") from None
