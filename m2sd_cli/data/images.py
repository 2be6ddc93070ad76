"""Any picture a person may have, as upright 8-bit RGB."""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from m2sd_cli.errors import DataError

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

_FILTERS = Lock()  # the filters of warnings belong to the whole process, and pictures are read in several threads


def open_rgb(path: Path) -> Image.Image:
    """Read a picture of any size and mode: turned as its EXIF orientation says, transparency laid on white.

    Sixteen-bit grey keeps its upper eight bits. Of an animation the first frame is taken.

    Raises:
        DataError: the file is missing, is no picture, is damaged, or is so large that it may be an attack.
    """
    try:
        with path.open("rb") as file:
            file.peek()  # waits for the disk while other threads may go on
            with _warnings_settled():
                image = Image.open(file, formats=FORMATS)
            with _end_settled(image):
                image.load()
            with _warnings_settled():
                turn = _UPRIGHT.get(_orientation(image))
            return _to_rgb(image if turn is None else image.transpose(turn))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise DataError(f"{path}: more than {limit} million pixels; scale it down first") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that can be read (jpg, png, webp or bmp)") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged picture ({error})") from None


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
    """The pictures directly inside a folder, sorted by name; hidden files and other files are passed over."""
    return sorted(path for path in folder.iterdir() if _looks_like_a_picture(path))


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """Files as they are named, and the pictures in folders, sorted by name.

    Raises:
        DataError: a place does not exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if _looks_like_a_picture(path))
            if not inside:
                raise DataError(f"{place}: no picture in it (jpg, jpeg, png, webp or bmp)")
            found += inside
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place}: no such file or folder")
    return found


def _looks_like_a_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
