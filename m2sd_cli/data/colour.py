"""Random brightness, contrast and saturation of whole batches, as torchvision's ColorJitter does with one image."""

import torch
from torch import Tensor


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, then contrast, then saturation of each image by a factor of its own in [1 - strength, 1 + strength].

    A factor blends the image with black, with its mean grey, and with its own grey version: below 1 towards it, above
    away from it; what leaves the range of colours is cut. Grey is that of ITU-R BT.601.

    Args:
        images: (B, 3, H, W) uint8, or float of 0..255.
        strength: in [0, 1].
        generator: on the device of `images`.

    Returns:
        (B, 3, H, W) float32 in 0..255, with the memory format of `images`.
    """
    draw = torch.rand(3, images.shape[0], 1, 1, 1, generator=generator, device=images.device)
    brightness, contrast, saturation = (1 + strength * (2 * draw - 1)).unbind()
    x = (images.float() * brightness).clamp(0, 255)
    x = torch.lerp(_grey(x).mean(dim=(2, 3), keepdim=True), x, contrast).clamp(0, 255)
    return torch.lerp(_grey(x), x, saturation).clamp(0, 255)


def _grey(x: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 1, H, W)."""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
