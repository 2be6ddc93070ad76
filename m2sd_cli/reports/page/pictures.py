"""Small pictures and heat maps as addresses that hold the picture itself."""

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

HEAT = (255, 80, 0)
STRONGEST = 0.78  # opacity of the largest value


def as_image(pixels: Tensor) -> Image.Image:
    """Convert pixels (3, S, S) uint8."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def thumbnail(pixels: Tensor, side: int) -> str:
    """Make an address of pixels (3, S, S) uint8, reduced to a side, as a JPEG."""
    image = as_image(pixels)
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    return _address(image, "jpeg", quality=82)


def heat(maps: Tensor) -> list[Image.Image]:
    """Convert maps of one picture (K, H, W) to transparent images (H, W): the more opaque, the larger the value.

    All of them have one scale, from the smallest of their values to the largest.
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


def laid_over(pixels: Tensor, layer: Image.Image, side: int) -> Image.Image:
    """Lay an image of `heat` over pixels (3, S, S) uint8, enlarged to a side at least."""
    picture = as_image(pixels)
    side = max(side, picture.width)
    picture = picture.resize((side, side), Image.Resampling.BICUBIC).convert("RGBA")
    return Image.alpha_composite(picture, layer.resize((side, side), Image.Resampling.BICUBIC)).convert("RGB")


def _address(image: Image.Image, form: str, **options: int) -> str:
    content = io.BytesIO()
    image.save(content, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
