"""Names of classes and of files as text, and when two of them are one to a person."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize


def is_text(name: str) -> bool:
    """Whether a file name is valid text, as it need not be on Linux."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def relative_name(path: Path, folder: Path) -> str:
    """A file below a folder as records name it: with slashes, and bytes that are no UTF-8 escaped."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def name_digest(path: Path) -> str:
    """The SHA-256 of a file's bare name: a lot that seems drawn at random, the same wherever the file lies."""
    return hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()


def class_name(name: str) -> str:
    """The name of a class in Unicode's composed form (NFC), as file systems differ in the form that they keep."""
    return normalize("NFC", name)


def caseless(name: str) -> str:
    """What is the same for names that only their case or their Unicode form tells apart."""
    return name.lower() if name.isascii() else normalize("NFC", normalize("NFC", name).casefold())


def clash(names: Iterable[str]) -> tuple[str, str] | None:
    """The first name that only its case or its Unicode form tells from an earlier one, after that one."""
    seen: dict[str, str] = {}
    for name in names:
        key = caseless(name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def as_pair(first: str, second: str) -> str:
    """Two names that clash, for a message; in ASCII if they look alike."""
    if class_name(first) == class_name(second):
        return f"{first!a} and {second!a} are the same in Unicode"
    return f"{first!r} and {second!r} differ only by case"
