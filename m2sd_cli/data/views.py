"""The views of an image, always the same ones: itself, its mirror image, and shifted crops of both."""

from collections.abc import Iterator

import torch
from torch import Tensor

SHIFT = 8  # a shift is an eighth of the side: the largest shift of training crops of CIFAR-100
CORNERS = ((-1, -1), (1, 1), (-1, 1), (1, -1), (-1, 0), (1, 0), (0, -1), (0, 1))
MOST_VIEWS = 2 + 2 * len(CORNERS)


def views(pixels: Tensor, count: int) -> Iterator[Tensor]:
    """Yield the first `count` views of images (B, 3, S, S), each of the same shape.

    They come in pairs, a crop and its mirror image. Pixels that a shift leaves empty repeat the pixel at the edge.

    Args:
        pixels: after the test transform.
        count: 1 to MOST_VIEWS.
    """
    side = pixels.shape[-1]
    positions = torch.arange(side, device=pixels.device)
    step = max(1, side // SHIFT)
    for number in range(count):
        view = pixels
        if number > 1:
            down, right = CORNERS[number // 2 - 1]
            ys, xs = ((positions + step * shift).clamp(0, side - 1) for shift in (down, right))
            view = view[:, :, ys][:, :, :, xs]
        yield view.flip(3) if number % 2 else view
