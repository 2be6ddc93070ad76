"""Guards around Pillow against damaged, hostile and huge images, and against its messages about them."""

import ctypes
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from threading import Lock

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, _imaging

from m2sd_cli.data.kinds import HEIC_MODULE, formats, is_at_hand, listed_kinds, way_out
from m2sd_cli.data.threads import MemoryBudget
from m2sd_cli.errors import DataError, ImageError

FORMATS = formats()  # by content; Pillow would run programs for others
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"})
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF
# A JPEG may have so many times the pixels of other images: above their limit it is decoded at half its size.
LARGER_JPEG = 2.5

# The exceptions that Pillow lets through from a damaged file.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)

DECODING = MemoryBudget(180_000_000)  # pixels, of up to 16 bytes each; a small file may hold a large image

# Bytes of unpacked text or colour profile in a PNG. Editors leave more than Pillow's limit; a bomb is larger.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 8 * 2**20)
MUCH_TEXT = ("Decompressed data too large", "Too much memory used in text")  # the beginnings of Pillow's refusals

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler its messages would be printed

# libtiff prints messages, too, unless it is told not to; not every build of Pillow lets it be reached.
with suppress(OSError, AttributeError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_FILTERS = Lock()  # the filters of warnings belong to the whole process, and images are read in several threads


@contextmanager
def name_damage(path: Path) -> Iterator[None]:
    """Turn every exception that reading an image may raise into one line that names the file.

    Raises:
        ImageError: the file is no image, is damaged, or is so large that it may be an attack.
        DataError: the memory is too small for the image.
    """
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(path, most_pixels()) from None
    except UnidentifiedImageError:
        raise ImageError(path, f"not an image that can be read ({listed_kinds()})") from None
    except DAMAGE as error:
        if str(error).startswith(MUCH_TEXT):
            raise ImageError(path, "more text or colour profile in it than an image needs; save it without") from None
        raise ImageError(path, f"damaged image ({str(error) or type(error).__name__})") from None
    except MemoryError:
        raise DataError(f"{path}: no memory left to read it; scale it down first") from None


def most_pixels() -> int:
    """Return the number of pixels that an image may have; a larger JPEG has fewer when it is decoded."""
    return Image.MAX_IMAGE_PIXELS or 2**31


def _too_large(path: Path, limit: float) -> ImageError:
    return ImageError(path, f"more than {int(limit) // 10**6} million pixels; scale it down first")


def open_header(file: BufferedReader, path: Path) -> ImageFile.ImageFile:
    """Read the size and mode of an image without its pixels.

    Raises:
        ImageError: it is too large, or of a kind that cannot be read here.
    """
    start = file.peek()[:12]  # waits for the disk outside of _settled_warnings, which holds up other threads
    if not start:
        raise ImageError(path, "an empty file, of 0 bytes; copy it again")
    if start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS and not _is_avif(file):
        return _open_heif(file, path)
    try:
        with _settled_warnings():
            image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        if not start.startswith(b"\xff\xd8"):
            raise
        file.seek(0)
        image = JpegImagePlugin.JpegImageFile(file)
        if image.width * image.height > LARGER_JPEG * most_pixels():
            raise _too_large(path, LARGER_JPEG * most_pixels()) from None
    if image.tile and image.tile[0][0] == "libtiff":
        _refuse_large_tiles(image, path)
    return image


def _is_avif(file: BufferedReader) -> bool:
    """Tell if one of a file's brands is AVIF's; its first brand may name the family alone."""
    start = file.peek()
    brands = start[: int.from_bytes(start[:4], "big")][16:]
    return b"avif" in brands or b"avis" in brands


def _open_heif(file: BufferedReader, path: Path) -> ImageFile.ImageFile:
    if not is_at_hand(HEIC_MODULE):
        raise ImageError(path, f"a HEIC image: {way_out('.heic', 'it')}")
    from pillow_heif import HeifImageFile

    image: ImageFile.ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call]
    if image.width * image.height > most_pixels():
        raise _too_large(path, most_pixels())
    return image


def _refuse_large_tiles(image: ImageFile.ImageFile, path: Path) -> None:
    """Refuse a compressed TIFF whose tiles are larger than images may be: each is unpacked as a whole.

    Raises:
        ImageError: a tile is larger.
    """
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0)
    if width * length > most_pixels():
        raise ImageError(path, "a TIFF of tiles larger than images may be; save it as jpg or png")


def decode(image: ImageFile.ImageFile) -> None:
    """Load the pixels in several threads at once, and the chunks behind them in one thread at a time.

    A JPEG of more pixels than images may have is decoded at half its width and height.
    """
    if image.width * image.height > most_pixels():
        image.draft(None, (image.width // 2, image.height // 2))
    parse = image.load_end

    def load_end() -> None:
        with _settled_warnings():
            parse()

    image.load_end = load_end  # type: ignore[method-assign]
    try:
        image.load()
    finally:
        del image.load_end  # it refers to the image, which would hold itself in memory


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
