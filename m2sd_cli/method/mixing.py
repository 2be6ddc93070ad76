"""Multi-branch virtual-class mixing, paper section 3.2: two virtual images and one soft label from each pair."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.numerics import WITHOUT_FLOAT64, float64_device

Mixing = Literal["both", "mixup", "cutmix", "none"]


class Virtual(NamedTuple):
    """The virtual images of one batch of B."""

    branches: tuple[Tensor, ...]  # x_I and x_II, or one of them, each (B, 3, H, W)
    labels: Tensor  # y_I = y_II, (B, C): every row sums to 1


def pair_different_classes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw for each image i of the batch a partner j with y_j != y_i, uniformly from all such j.

    An image whose batch holds one class only is its own partner: mixing leaves its pixels and label as they are, and
    the step still trains.

    Args:
        labels: (B,) integer classes.
        generator: on the device of `labels`.

    Returns:
        (B,) indices into the batch.
    """
    batch = labels.shape[0]
    score = torch.rand(batch, batch, generator=generator, device=labels.device)
    # An argmax over random scores draws uniformly without asking the device how many candidates there are.
    score = score.masked_fill(labels[:, None] == labels[None, :], -1.0)
    best, partner = score.max(dim=1)
    return torch.where(best < 0, torch.arange(batch, device=labels.device), partner)


def sample_lambda(beta: float, batch: int, generator: torch.Generator) -> Tensor:
    """Draw one lambda ~ Beta(beta, beta) for each of `batch` pairs, as (batch,) float32 within [0, 1].

    It is drawn as G_1 / (G_1 + G_2) with G ~ Gamma(beta), since torch's Beta distribution takes no generator.

    Args:
        beta: the paper's a, above 0.
        batch: the number of pairs.
        generator: its device is the result's.
    """
    device = generator.device
    wide = float64_device(device)
    if device.type in WITHOUT_FLOAT64:
        seed = torch.randint(2**62, (), generator=generator, device=device)
        generator = torch.Generator(wide).manual_seed(int(seed))
    shape = torch.full((2, batch), beta + 1, dtype=torch.float64, device=wide)
    gamma = torch._standard_gamma(shape, generator=generator)
    uniform = 1 - torch.rand(2, batch, dtype=torch.float64, generator=generator, device=wide)
    # Gamma(beta) = Gamma(beta + 1) U^(1 / beta) underflows for a small beta, its logarithm does not.
    log_ratio = (gamma[0] / gamma[1]).log() + (uniform[0] / uniform[1]).log() / beta
    return torch.sigmoid(log_ratio).float().to(device)


def mixup(x: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """x_I = lambda x_i + (1 - lambda) x_j (Zhang et al., ICLR 2018): x (B, 3, H, W), partner and lam (B,)."""
    weight = lam.view(-1, 1, 1, 1).to(x.dtype)
    return torch.lerp(x[partner], x, weight)


def cutmix_box(
    lam: Tensor, height: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw the pasted box of each pair, always inside the image.

    r_w = W sqrt(1 - lambda), r_h = H sqrt(1 - lambda), r_x ~ U(r_w / 2, W - r_w / 2), r_y likewise.

    Args:
        lam: (B,) within [0, 1].
        height, width: H and W in pixels.
        generator: on the device of `lam`.

    Returns:
        top, bottom, left, right, each (B,), whole pixels: rows top <= r < bottom, columns left <= c < right.
    """
    side = torch.sqrt(1 - lam)
    box_height, box_width = torch.round(height * side), torch.round(width * side)
    corner = torch.rand(2, lam.shape[0], generator=generator, device=lam.device)
    # A uniform centre within those bounds is a uniform corner in [0, H - r_h], rounded so that every pixel is reached.
    top = torch.floor(corner[0] * (height - box_height + 1)).clamp_max(height - box_height)
    left = torch.floor(corner[1] * (width - box_width + 1)).clamp_max(width - box_width)
    return top, top + box_height, left, left + box_width


def cutmix(x: Tensor, partner: Tensor, lam: Tensor, generator: torch.Generator) -> Tensor:
    """x_II = M * x_i + (1 - M) * x_j (Yun et al., ICCV 2019); M is 0 inside the box, 1 elsewhere.

    The box is rounded to whole pixels, and lambda stays as drawn, since both branches share one label. CutMix as
    published sets lambda to the share of x_i's pixels.
    """
    height, width = x.shape[-2:]
    top, bottom, left, right = (edge.view(-1, 1) for edge in cutmix_box(lam, height, width, generator))
    row = torch.arange(height, device=x.device)
    column = torch.arange(width, device=x.device)
    in_rows = (row >= top) & (row < bottom)
    in_columns = (column >= left) & (column < right)
    inside = (in_rows[:, :, None] & in_columns[:, None, :]).unsqueeze(1)
    return torch.where(inside, x[partner], x)


def soft_labels(labels: Tensor, partner: Tensor, lam: Tensor, classes: int) -> Tensor:
    """y_I = y_II = lambda y_i + (1 - lambda) y_j over the base classes alone: (B, classes) float32."""
    one_hot = F.one_hot(labels, classes)
    return lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[partner]


def mix(
    x: Tensor, labels: Tensor, classes: int, beta: float, generator: torch.Generator, mixing: Mixing = "both"
) -> Virtual:
    """Make the virtual branches of a batch, with one lambda a pair for both, so that they share one label.

    An ablation makes one branch alone. With `none` the clean images and their own labels are the one branch, and
    nothing is drawn.

    Args:
        x: (B, 3, H, W) normalised images.
        labels: (B,) integers in [0, classes).
        classes: C, the number of base classes.
        beta: the parameter of Beta(beta, beta).
        generator: on the device of `x`.
        mixing: the branches to make; each is the same with or without the other.

    Raises:
        ValueError: beta is not a finite number above 0.
    """
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be a finite number above 0, not {beta}")
    if mixing == "none":
        return Virtual((x,), F.one_hot(labels, classes).float())
    partner = pair_different_classes(labels, generator)
    lam = sample_lambda(beta, x.shape[0], generator)
    branches = []
    if mixing != "cutmix":
        branches.append(mixup(x, partner, lam))
    if mixing != "mixup":
        branches.append(cutmix(x, partner, lam, generator))
    return Virtual(tuple(branches), soft_labels(labels, partner, lam, classes))
