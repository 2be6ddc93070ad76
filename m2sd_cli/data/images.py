"""An image of any kind as upright 8-bit RGB."""

from pathlib import Path

from PIL import Image

from m2sd_cli.data import image_guards
from m2sd_cli.data.deep_grey import UnknownWhiteError, refuse_signed, to_eight_bits
from m2sd_cli.data.image_files import open_file
from m2sd_cli.errors import ImageError

# By EXIF orientation. Pillow's exif_transpose would also write the EXIF block anew, which fails if it is damaged.
UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

FULL_SIZE = "m2sd full size"  # key of Image.info: the upright size in the file; a large JPEG is read at half of it
SIDEWAYS = frozenset({5, 6, 7, 8})  # orientations that swap width and height

COLOUR = {"RGB": 3, "RGBA": 3, "RGBX": 3, "LA": 1}  # channels beside transparency, by mode


def open_rgb(path: Path) -> Image.Image:
    """Read an image of any size and mode: turned as its EXIF orientation says, transparency laid on white.

    Of an animation the first frame is taken. Grey of more than eight bits is scaled as `to_eight_bits` says.

    Raises:
        ImageError: the file is missing, is no image, is damaged, is so large that it may be an attack, or its numbers
            do not tell which of them is white.
        DataError: the memory is too small for the image.
    """
    with image_guards.name_damage(path), open_file(path) as file:
        image = image_guards.open_header(file, path)
        width, height = image.size
        with image_guards.DECODING.reserved(width * height):
            sixteen_bits = bool(image.tile) and ";16" in str(image.tile[0])
            image_guards.decode(image)
            if sixteen_bits and image.mode in COLOUR:
                _refuse_lower_bits(image, path)
            orientation = image_guards.read_orientation(image)
            try:
                rgb = to_rgb(image)
            except UnknownWhiteError as error:
                raise ImageError(path, f"{error}; save it with 8 bits, as a png") from None
            turn = UPRIGHT.get(orientation)
            upright = rgb if turn is None else rgb.transpose(turn)
            upright.info[FULL_SIZE] = (height, width) if orientation in SIDEWAYS else (width, height)
            return upright


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Raises:
        UnknownWhiteError: its numbers do not tell which of them is white.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return to_eight_bits(image).convert("RGB")
    refuse_signed(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def _refuse_lower_bits(image: Image.Image, path: Path) -> None:
    """Refuse an image of 16 bits a colour that uses the lower 12 at most: Pillow keeps the upper eight.

    Raises:
        ImageError: no colour is brighter.
    """
    brightest = max(high for _, high in _extrema(image)[: COLOUR[image.mode]])
    if 0 < brightest < 16:
        raise ImageError(path, "16 bits a colour, and only the lower 12 are used; save it with 8 bits, as a png")


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    return [channel.getextrema() for channel in image.split()]  # type: ignore[misc]
