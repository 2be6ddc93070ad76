"""Random brightness, contrast and saturation of whole batches, as torchvision's ColorJitter changes one image."""

import torch
from torch import Tensor


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, then contrast, then saturation of each image, by factors in [1 - strength, 1 + strength].

    Each image has factors of its own. A factor blends the image with black, with its mean grey, and with its grey
    version: below 1 towards it, above away from it. Values are clamped to the range of colours. Grey is that of ITU-R
    BT.601.

    Args:
        images: (B, 3, H, W) uint8, or float of 0..255.
        strength: in [0, 1].
        generator: on the device of `images`.

    Returns:
        (B, 3, H, W) float32 in 0..255, with the memory format of `images`.
    """
    uniform = torch.rand(3, images.shape[0], 1, 1, 1, generator=generator, device=images.device)
    brightness, contrast, saturation = (1 + strength * (2 * uniform - 1)).unbind()
    x = (images.float() * brightness).clamp(0, 255)
    x = torch.lerp(_grey(x).mean(dim=(2, 3), keepdim=True), x, contrast).clamp(0, 255)
    return torch.lerp(_grey(x), x, saturation).clamp(0, 255)


def _grey(x: Tensor) -> Tensor:
    """Convert (B, 3, H, W) to grey, (B, 1, H, W)."""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
