"""Thumbnails and heat maps as addresses that hold the image itself."""

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

HEAT = (255, 80, 0)
STRONGEST = 0.78  # opacity of the largest value
SMALLEST, GAP = 224, 8  # pixels: side of an image in a file of its own, and between two


def as_image(pixels: Tensor) -> Image.Image:
    """Convert pixels (3, S, S) uint8 to an image of Pillow."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def thumbnail(pixels: Tensor, side: int) -> str:
    """Make an address of pixels (3, S, S) uint8 as a JPEG with sides of at most `side` pixels."""
    image = as_image(pixels)
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    return _address(image, "jpeg", quality=82)


def heat(maps: Tensor) -> list[Image.Image]:
    """Convert the maps of one image (K, H, W) to transparent images (H, W): the larger the value, the more opaque.

    All maps have one scale, from the smallest of their values to the largest.
    """
    low, high = float(maps.min()), float(maps.max())
    shares = ((maps.double() - low) / (high - low or 1)).numpy()
    images = []
    for share in shares:
        rgba = np.empty((*share.shape, 4), dtype=np.uint8)
        rgba[..., :3] = HEAT
        rgba[..., 3] = np.round(255 * STRONGEST * share)
        images.append(Image.fromarray(rgba, "RGBA"))
    return images


def heat_address(image: Image.Image) -> str:
    """Make an address of an image of `heat`."""
    return _address(image, "png")


def evidence_png(pixels: Tensor, maps: Tensor) -> bytes:
    """Make a PNG of an image (3, S, S) uint8, and of the image under each of its maps (K, H, W), side by side."""
    image = as_image(pixels)
    side = max(SMALLEST, image.width)
    shown = [image.resize((side, side), Image.Resampling.BICUBIC)]
    shown += (laid_over(shown[0], each) for each in heat(maps))
    row = Image.new("RGB", (len(shown) * (side + GAP) - GAP, side), "white")
    for place, each in enumerate(shown):
        row.paste(each, (place * (side + GAP), 0))
    content = io.BytesIO()
    row.save(content, "png")
    return content.getvalue()


def laid_over(image: Image.Image, layer: Image.Image) -> Image.Image:
    """Lay an image of `heat` over an image, enlarged to its size."""
    layer = layer.resize(image.size, Image.Resampling.BICUBIC)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _address(image: Image.Image, form: str, **options: int) -> str:
    content = io.BytesIO()
    image.save(content, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
