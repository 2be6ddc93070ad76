"""Grey images of more than eight bits, whose white has to be known before they can be shown with eight."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from m2sd_cli.progress import say
from m2sd_cli.reading import counted

# Tags of a TIFF.
BITS, PHOTOMETRIC, MAX_SAMPLE, SAMPLE_FORMAT, SMALLEST, LARGEST = 258, 262, 281, 339, 340, 341
WHITE_IS_ZERO = 0
SIGNED = 2

WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
SCALE = "m2sd scale"  # key of Image.info: the range of numbers that was taken for black to white, in words
BLACK = 16  # floats whose largest number is below it have a white of 1, or an unknown one, and not 255
OVERSHOOT = 0.1  # of white: resampling leaves floats a little outside of their range


class UnknownWhiteError(Exception):
    """An image whose numbers do not tell which of them is white or black."""


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert an image of 16-bit or 32-bit integers or floats, of mode I, I;16 or F, to mode L.

    White is the number that the tags of a TIFF name. Without tags it is the largest number of 8, 10, 12, 14 or 16 bits:
    of the fewest bits that hold the largest number of the image. Of floats it may be 1, too. Integers keep their upper
    eight bits.

    Raises:
        UnknownWhiteError: the image has numbers that are not finite; or it has numbers that are negative or larger than
            16 bits, and no tag names white.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    numbers = np.asarray(image)
    with np.errstate(all="ignore"):
        low, high = float(numbers.min()), float(numbers.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UnknownWhiteError("numbers that are not finite (NaN or infinity)")
        stated = _stated_range(tags, low, high)
        black, white = stated or (0.0, _white(image.mode, low, high))
        if image.mode != "F" and white <= WHITES[-1]:
            eight = ((numbers.astype(np.int32) - int(black)) * 256 // (int(white - black) + 1)).astype(np.uint8)
        else:
            share = (numbers.astype(np.float32) - np.float32(black)) / np.float32(white - black)
            eight = (share.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    grey = Image.fromarray(255 - eight if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else eight)
    grey.info[SCALE] = (
        f"{black:g} is black and {white:g} white, {'as the file says' if stated else 'by the largest number'}"
    )
    return grey


def refuse_signed(image: Image.Image) -> None:
    """Refuse the signed bytes of a TIFF, which Pillow takes for unsigned ones.

    Raises:
        UnknownWhiteError: the image has signed bytes.
    """
    if SIGNED in np.ravel(getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, 0)):
        raise UnknownWhiteError("signed bytes, and nothing says which is black")


class Scales:
    """The scales of deep grey images among those that several threads read."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    def note(self, image: Image.Image) -> Image.Image:
        """Note the scale of an image if it has one, and return the image."""
        if SCALE in image.info:
            self._seen.append(image.info[SCALE])
        return image

    def say(self) -> None:
        """Report the scales of deep grey images, if there were any."""
        for line in describe_scales(Counter(self._seen)):
            say(line)


def describe_scales(scales: Mapping[str, int]) -> list[str]:
    """Describe the scales of deep grey images in lines, by the number of images of each scale."""
    return [f"{counted(count, 'grey image')} of more than 8 bits: {scale}" for scale, count in scales.items()]


def _stated_range(tags: Mapping[int, Any], low: float, high: float) -> tuple[float, float] | None:
    """Return the numbers of black and white that the tags name, if all numbers of the image lie between them."""
    bits = tags.get(BITS, (0,))[0]
    if 8 < bits < 16:
        return 0.0, 2.0**bits - 1
    try:
        black = float(np.ravel(tags.get(SMALLEST, 0))[0])
        white = float(np.ravel(tags.get(LARGEST, tags.get(MAX_SAMPLE)))[0])
    except (TypeError, ValueError, LookupError):
        return None
    return (black, white) if black <= low <= high <= white < float("inf") and black < white else None


def _white(mode: str, low: float, high: float) -> float:
    """Find the number of white by the range of an image whose black is 0."""
    if mode == "F" and high < BLACK:
        white = 1.0 if high <= 2 else None
    else:
        white = next((float(white) for white in WHITES if high <= white), None)
    if white is None:
        raise UnknownWhiteError(f"numbers up to {high:g}, and nothing says which is white")
    if low < (-OVERSHOOT * white if mode == "F" else 0):
        raise UnknownWhiteError(f"numbers from {low:g} on, and nothing says which is black")
    return white
