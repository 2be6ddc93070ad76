"""A picture of any kind as upright 8-bit RGB."""

from pathlib import Path

from PIL import Image

from m2sd_cli.data import picture_guards
from m2sd_cli.data.picture_files import open_file

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


def open_rgb(path: Path) -> Image.Image:
    """Read a picture of any size and mode: turned as its EXIF orientation says, transparency laid on white.

    Sixteen-bit grey keeps its upper eight bits. Of an animation the first frame is taken.

    Raises:
        PictureError: the file is missing, is no picture, is damaged, or is so large that it may be an attack.
        DataError: there is no memory for it.
    """
    with picture_guards.name_damage(path), open_file(path) as file:
        image = picture_guards.open_header(file, path)
        with picture_guards.DECODING.reserved(image.width * image.height):
            picture_guards.decode(image)
            turn = UPRIGHT.get(picture_guards.read_orientation(image))
            return to_rgb(image if turn is None else image.transpose(turn))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to 8-bit RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode == "F":
        return image.convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")
