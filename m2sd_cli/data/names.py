"""Names of classes and of files as text, and names that a person would take for one."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

LONGEST = 255  # characters of a class's name, as of a folder's


def is_text(name: str) -> bool:
    """Tell if a file name is valid text, as it need not be on Linux."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_class_name(name: str) -> bool:
    """Tell if a class may have a name: a folder could have the name, and a person see it."""
    return bool(name.strip()) and len(name) <= LONGEST and is_text(name) and not {"/", "\0"} & {*name}


def relative_name(path: Path, folder: Path) -> str:
    """Name a file below a folder as records do: with slashes, and bytes that are no UTF-8 escaped."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def name_digest(path: Path) -> str:
    """Compute the SHA-256 of a file's bare name, as a random number that does not depend on the file's folder."""
    return hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()


def class_name(name: str) -> str:
    """Bring the name of a class to Unicode's composed form (NFC), as file systems differ in the form that they keep."""
    return normalize("NFC", name)


def name_key(name: str) -> str:
    """Return a key that is the same for names that only case, spaces or Unicode form tells apart."""
    name = " ".join(name.split())
    return name.lower() if name.isascii() else normalize("NFC", normalize("NFC", name).casefold())


def clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Find the first pair of an earlier and a later name that differ by case, spaces or Unicode form alone."""
    seen: dict[str, str] = {}
    for name in names:
        key = name_key(name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def as_pair(first: str, second: str) -> str:
    """Describe two names that clash, for a message; in ASCII if they look alike."""
    if class_name(first) == class_name(second):
        return f"{first!a} and {second!a} are the same in Unicode"
    return f"{first!r} and {second!r} differ only by case or spaces"
