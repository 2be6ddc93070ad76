"""Any picture a person may have, as upright 8-bit RGB."""

import errno
import logging
import os
import stat
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from m2sd_cli.data.threads import Room
from m2sd_cli.errors import DataError, PictureError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # by content; Pillow would run programs for others

# What Pillow lets through of a damaged file, from wherever it stumbles over it.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, struct.error)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation; exif_transpose would also write the EXIF block anew, which fails or warns if it is damaged

_NOT_A_FILE = "not a file, or a link that leads nowhere"

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or its complaints about a picture would be printed

_ROOM = Room(180_000_000)  # pixels in decoding, of up to 16 bytes each: small files may hold large pictures

_FILTERS = Lock()  # the filters of warnings belong to the whole process, and pictures are read in several threads


def open_rgb(path: Path) -> Image.Image:
    """Read a picture of any size and mode: turned as its EXIF orientation says, transparency laid on white.

    Sixteen-bit grey keeps its upper eight bits. Of an animation the first frame is taken.

    Raises:
        PictureError: the file is missing, is no picture, is damaged, or is so large that it may be an attack.
        DataError: there is no memory for it.
    """
    try:
        with open_file(path) as file:
            file.peek()  # waits for the disk while other threads may go on
            with _warnings_settled():
                image = Image.open(file, formats=FORMATS)
            if image.tile and image.tile[0][0] == "libtiff":
                # It unpacks a tile whole, however large, and prints its complaints.
                raise PictureError(path, "a compressed TIFF; save it as jpg or png")
            with _ROOM.taken(image.width * image.height):
                with _end_settled(image):
                    image.load()
                with _warnings_settled():
                    turn = _UPRIGHT.get(_orientation(image))
                return _to_rgb(image if turn is None else image.transpose(turn))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise PictureError(path, f"more than {limit} million pixels; scale it down first") from None
    except UnidentifiedImageError:
        raise PictureError(path, "not a picture that can be read (jpg, png, webp or bmp)") from None
    except _DAMAGE as error:
        raise PictureError(path, f"damaged picture ({str(error) or type(error).__name__})") from None
    except MemoryError:
        raise DataError(f"{path}: no memory left to read it; scale it down first") from None


def open_file(path: Path) -> BufferedReader:
    """Open the file of a picture, without waiting for what a pipe or a device may have to say.

    Raises:
        PictureError: it cannot be opened, or is no file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError(path, _NOT_A_FILE)
        return path.open("rb")
    except FileNotFoundError:
        raise PictureError(path, _NOT_A_FILE if os.path.islink(path) else "no such file") from None
    except PermissionError:
        raise PictureError(path, "no permission to read it") from None
    except OSError as error:
        why = _NOT_A_FILE if error.errno == errno.ELOOP else f"cannot be read ({error.strerror or error})"
        raise PictureError(path, why) from None


@contextmanager
def _warnings_settled() -> Iterator[None]:
    """Raises the warning of too many pixels and drops Pillow's others; short, as one thread at a time is let in."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _end_settled(image: ImageFile.ImageFile) -> Iterator[None]:
    """Settles the warnings of what Pillow parses behind the pixels, while pixels are decoded in several threads."""
    parse = image.load_end

    def load_end() -> None:
        with _warnings_settled():
            parse()

    image.load_end = load_end  # type: ignore[method-assign]
    try:
        yield
    finally:
        del image.load_end  # or the picture would hold itself in memory


def _orientation(image: Image.Image) -> Any:
    """The orientation that the EXIF block or XMP names; None if there is none or it cannot be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode == "F":
        return image.convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def list_images(folder: Path) -> list[Path]:
    """What has a picture's name directly inside a folder, sorted by name; hidden files and folders are passed over.

    A link that leads nowhere is listed like any other, so that reading it says so.

    Raises:
        DataError: the folder cannot be read.
    """
    return sorted(_pictures(list_folder(folder)))


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """Files as they are named, and the pictures in folders and their sub-folders, sorted by name.

    A link to a folder is followed where it is named, but not inside a folder, where it may lead in circles.

    Raises:
        DataError: a place does not exist, or a folder cannot be read or holds no picture.
    """
    found: list[Path] = []
    for place in places:
        if os.path.isdir(place):
            inside: list[Path] = []
            waiting = [place]
            while waiting:
                entries = list_folder(waiting.pop())
                inside += _pictures(entries)
                waiting += (path for path in entries if os.path.isdir(path) and not os.path.islink(path))
            if not inside:
                raise DataError(f"{place}: no picture in it (jpg, jpeg, png, webp or bmp)")
            found += sorted(inside)
        elif os.path.lexists(place):
            found.append(place)
        else:
            raise DataError(f"{place}: no such file or folder")
    return found


def list_folder(folder: Path) -> list[Path]:
    """What lies directly inside a folder, in no particular order.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})") from None


def _pictures(entries: Iterable[Path]) -> Iterator[Path]:
    for path in entries:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not os.path.isdir(path):
            yield path
