"""The test transform, which every image goes through before it is compared with a class mean."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SLENDER = 16  # long side over short side, beyond which only the middle of an image is looked at
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TestTransform:
    """Resize (antialiased), crop the centre, scale to [0, 1], subtract the mean, divide by the deviation.

    The feature of an image is the mean of the features of its views, of which the first is the cropped image.
    """

    __test__ = False  # pytest would collect a class whose name begins with Test

    resize: int  # pixels of the short side, or of both sides if `squash`
    crop: int  # side of the square that the network sees
    mean: tuple[float, float, float]  # of RGB in [0, 1]
    std: tuple[float, float, float]
    squash: bool = False  # resize to a square, and not by the short side
    views: int = 1  # of the cropped image, see `data.views`
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def pixels(self, image: Image.Image) -> Tensor:
        """Transform an RGB image of any size to (3, crop, crop) uint8.

        Sizes and corners are rounded as in torchvision, by which the field has made its figures.
        """
        width, height = image.size
        if self.squash:
            size = (self.resize, self.resize)
        else:
            short = min(width, height)
            if max(width, height) > SLENDER * short:
                # The whole of a hair-thin image would not fit in memory when resized, and only its centre is used.
                image = ImageOps.fit(image, (min(width, SLENDER * short), min(height, SLENDER * short)))
                width, height = image.size
            size = (int(self.resize * width / short), int(self.resize * height / short))
        if size != image.size:
            image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        left, top = round((size[0] - self.crop) / 2), round((size[1] - self.crop) / 2)
        if size != (self.crop, self.crop):
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return to_tensor(image)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) uint8, or float of 0..255, to the float32 that the network takes."""
        return normalise(pixels, self.mean, self.std)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to (3, H, W) uint8."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Compute (x / 255 - mean) / std a channel of (B, 3, H, W) in 0..255, as one multiply-add in float32."""
    factors = torch.tensor([[1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]])
    # Without non_blocking a training step would wait for the device here.
    scale, shift = factors.to(pixels.device, non_blocking=True).view(2, 1, -1, 1, 1)
    return torch.addcmul(shift, pixels.float(), scale)
