"""Guards around Pillow against damaged, hostile and huge pictures, and against its complaints about them."""

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from threading import Lock

from PIL import ExifTags, Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from m2sd_cli.data.threads import MemoryBudget
from m2sd_cli.errors import DataError, PictureError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # by content; Pillow would run programs for others

# The exceptions that Pillow lets through of a damaged file, from wherever it stumbles over it.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, struct.error)

DECODING = MemoryBudget(180_000_000)  # pixels of up to 16 bytes each: small files may hold large pictures

# Text or colour profile of a PNG, unpacked. Editors leave more than Pillow's one; a bomb would be larger.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 8 * 2**20)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or its complaints about a picture would be printed

_FILTERS = Lock()  # the filters of warnings belong to the whole process, and pictures are read in several threads


@contextmanager
def name_damage(path: Path) -> Iterator[None]:
    """Turn every exception that reading a picture may raise into one line that names the file.

    Raises:
        PictureError: the file is no picture, is damaged, or is so large that it may be an attack.
        DataError: there is no memory for it.
    """
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise PictureError(path, f"more than {limit} million pixels; scale it down first") from None
    except UnidentifiedImageError:
        raise PictureError(path, "not a picture that can be read (jpg, png, webp or bmp)") from None
    except DAMAGE as error:
        raise PictureError(path, f"damaged picture ({str(error) or type(error).__name__})") from None
    except MemoryError:
        raise DataError(f"{path}: no memory left to read it; scale it down first") from None


def open_header(file: BufferedReader, path: Path) -> ImageFile.ImageFile:
    """Read the size and mode of a picture, none of its pixels.

    Raises:
        PictureError: it is a compressed TIFF.
    """
    file.peek()  # waits for the disk while other threads may go on
    with _settled_warnings():
        image = Image.open(file, formats=FORMATS)
    if image.tile and image.tile[0][0] == "libtiff":
        # It unpacks a tile whole, however large, and prints its complaints.
        raise PictureError(path, "a compressed TIFF; save it as jpg or png")
    return image


def decode(image: ImageFile.ImageFile) -> None:
    """Load the pixels, in several threads at once, and what lies behind them, one thread at a time."""
    parse = image.load_end

    def load_end() -> None:
        with _settled_warnings():
            parse()

    image.load_end = load_end  # type: ignore[method-assign]
    try:
        image.load()
    finally:
        del image.load_end  # or the picture would hold itself in memory


def read_orientation(image: Image.Image) -> object:
    """Read the orientation that the EXIF block or XMP names; None if there is none or it cannot be read."""
    with _settled_warnings():
        try:
            return image.getexif().get(ExifTags.Base.Orientation)
        except DAMAGE:
            return None


@contextmanager
def _settled_warnings() -> Iterator[None]:
    """Raise the warning of too many pixels and drop Pillow's others; short, as one thread at a time is let in."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
