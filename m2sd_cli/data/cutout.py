"""Cutout (DeVries and Taylor, 2017) of whole batches."""

import torch
from torch import Tensor


def cutout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Cut a square hole into each image, about a pixel drawn at random; the part outside the image is lost.

    Args:
        x: (B, C, S, S) normalised, so that the hole has the mean colour, 0.
        share: side of the hole as a share of S, in [0, 1]; at least one pixel.
        generator: on the device of `x`.

    Returns:
        the same shape, type and memory format.
    """
    batch, size = x.shape[0], x.shape[-1]
    side = max(1, round(share * size))
    first = torch.randint(0, size, (2, batch, 1), generator=generator, device=x.device) - side // 2
    position = torch.arange(size, device=x.device)
    in_row, in_column = (position >= first) & (position < first + side)  # (B, S) each
    hole = in_row[:, None, :, None] & in_column[:, None, None, :]
    return torch.where(hole, 0, x)  # masked_fill does not keep channels last
