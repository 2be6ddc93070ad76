"""The table of the kinds of image files: their names, and the modules that read them."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from m2sd_cli.extras import install_extra

HEIC_MODULE: Final = "pillow_heif"


@dataclass(frozen=True)
class Kind:
    """A kind of image files."""

    format: str  # Pillow's name of the kind, which it knows by the content of a file
    suffixes: tuple[str, ...]  # in lower case; the first one stands for the kind in messages
    module: str = "PIL"  # that reads it
    extra: str = ""  # of this distribution, which brings the module


KINDS: Final = (
    Kind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo")),
    Kind("PNG", (".png", ".apng")),
    Kind("WEBP", (".webp",)),
    Kind("BMP", (".bmp", ".dib")),
    Kind("GIF", (".gif",)),
    Kind("TIFF", (".tif", ".tiff")),
    Kind("AVIF", (".avif",), "PIL._avif"),
    Kind("HEIF", (".heic", ".heif", ".hif"), HEIC_MODULE, "heic"),
)
# Images that are not read: messages tell them from notes and lists by their names.
OTHERS: Final = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"}
    | {".ai", ".eps", ".exr", ".hdr", ".ico", ".j2k", ".jp2", ".jxl", ".pbm", ".pcx", ".pgm", ".ppm", ".psd", ".svg"}
    | {".tga", ".xcf"}
)
ARCHIVES: Final = frozenset({".7z", ".bz2", ".gz", ".rar", ".tar", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"})
# Files that systems leave behind, in lower case; hidden ones are passed over, too.
SYSTEM_FILES: Final = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})

_BY_SUFFIX: Final = {suffix: kind for kind in KINDS for suffix in kind.suffixes}


@cache
def is_at_hand(module: str) -> bool:
    """Tell if a module is installed, without importing it."""
    return find_spec(module) is not None


def is_image(path: Path) -> bool:
    """Tell by the name of a file if it is an image that can be read here."""
    kind = _BY_SUFFIX.get(path.suffix.lower())
    return kind is not None and is_at_hand(kind.module)


def is_any_image(path: Path) -> bool:
    """Tell by the name of a file if it is an image, whether it can be read or not."""
    suffix = path.suffix.lower()
    return suffix in _BY_SUFFIX or suffix in OTHERS


def way_out(suffix: str, them: str) -> str:
    """Return the way out for a file that is left out, by its suffix.

    Args:
        suffix: in lower case.
        them: "it" or "them".
    """
    kind = _BY_SUFFIX.get(suffix)
    if kind is not None:
        adding = install_extra(kind.extra) if kind.extra else f"install a Pillow that reads {kind.format}"
        return f"{adding}, or convert {them}"
    if suffix in ARCHIVES:
        return f"an archive; unpack {them}" if them == "it" else f"archives; unpack {them}"
    return f"convert {them} to jpg or png" if suffix in OTHERS else "no image by the name"


def listed_kinds() -> str:
    """Enumerate the kinds that can be read here, for messages."""
    names = [kind.suffixes[0].removeprefix(".") for kind in KINDS if is_at_hand(kind.module)]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def formats() -> tuple[str, ...]:
    """List Pillow's names of the kinds that it reads without pillow-heif."""
    return tuple(kind.format for kind in KINDS if kind.module != HEIC_MODULE)
