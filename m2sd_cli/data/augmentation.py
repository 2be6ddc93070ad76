"""Training augmentation as short pure functions on whole batches, on the device of the batch."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """A random crop, or a random resized crop, with a flip."""

    size: int  # side of the square that the network sees, in pixels
    padding: int | None = None  # pixels of black around an image before a random crop; None: random resized crop
    flip: bool = True  # left-right, with probability one half
    store: int | None = None  # side that files are decoded to for random resized crops
    area: tuple[float, float] = (0.08, 1.0)  # bounds of a resized crop, as a share of the image
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # bounds of a resized crop, width by height

    def __call__(self, images: Tensor, aspects: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, S, S, 3) uint8.
            aspects: (B,) width / height that each image had before it was squashed to S x S.
            generator: on the device of `images`.

        Returns:
            (B, 3, size, size), channels last in memory, in 0..255: uint8 after a crop, float32 after a resized one.
        """
        if self.padding is not None:
            return random_crop(images, self.padding, self.flip, generator)
        box = random_box(aspects, self.area, self.aspect, generator)
        return resized_crop(images, box, self.size, self.flip, generator)


def random_flip(batch: int, generator: torch.Generator) -> Tensor:
    """Draw (B,) bool: true for the images to mirror."""
    return torch.rand(batch, generator=generator, device=generator.device) < 0.5


def random_crop(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Pad by black, cut the original size out at a random position, mirror half of the images.

    (B, H, W, 3) to (B, 3, H, W) of the same type; one gather does all three.
    """
    batch, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    corner = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator, device=images.device)
    rows = corner[0] + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device).expand(batch, width)
    if flip:
        mirrored = random_flip(batch, generator)[:, None]
        across = torch.where(mirrored, width - 1 - across, across)
    columns = corner[1] + across
    image = torch.arange(batch, device=images.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_box(
    aspects: Tensor, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator, tries: int = 10
) -> Tensor:
    """Draw the boxes of random resized crops (Szegedy et al., 2015), in torchvision's manner.

    A box of random area and log-uniform aspect is drawn `tries` times; the first that fits its image is taken, else
    the largest central box whose aspect is within `ratio`.

    Args:
        aspects: (B,) width / height of each image.
        area: bounds of the box's share of the image.
        ratio: bounds of the box's width / height, in the image's own proportions.
        generator: on the device of `aspects`.
        tries: boxes to draw for each image.

    Returns:
        (B, 4): left, top, width, height as shares of the image's width and height, each box within [0, 1].
    """
    batch = aspects.shape[0]
    uniform = torch.rand(4, tries, batch, generator=generator, device=aspects.device)
    share = area[0] + (area[1] - area[0]) * uniform[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    box_aspect = (low + (high - low) * uniform[1]).exp()
    width = (share * box_aspect / aspects).sqrt()  # shares of the image, whose width / height is `aspects`
    height = (share * aspects / box_aspect).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    any_fits = fits.any(dim=0)
    clipped = aspects.clamp(*ratio)
    width = torch.where(any_fits, width.gather(0, first)[0], (clipped / aspects).clamp_max(1))
    height = torch.where(any_fits, height.gather(0, first)[0], (aspects / clipped).clamp_max(1))
    left = torch.where(any_fits, uniform[2, 0], 0.5) * (1 - width)
    top = torch.where(any_fits, uniform[3, 0], 0.5) * (1 - height)
    return torch.stack([left, top, width, height], dim=1)


def resized_crop(images: Tensor, box: Tensor, size: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Cut each box out and resize it to size x size, bilinear, mirroring half of them.

    (B, S, S, 3) uint8 and boxes (B, 4) as `random_box` gives them to (B, 3, size, size) float32.
    """
    batch = images.shape[0]
    left, top, width, height = box.unbind(dim=1)
    direction = torch.ones(batch, device=images.device)
    if flip:
        direction = torch.where(random_flip(batch, generator), -1.0, 1.0)
    zero = torch.zeros_like(left)
    # Maps the output's [-1, 1] to the box within the input's [-1, 1].
    theta = torch.stack(
        [
            torch.stack([width * direction, zero, 2 * left + width - 1], dim=1),
            torch.stack([zero, height, 2 * top + height - 1], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [batch, 3, size, size], align_corners=False)
    source = images.permute(0, 3, 1, 2).float()
    cut = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.contiguous(memory_format=torch.channels_last)
