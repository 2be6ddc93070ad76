"""Helpers for half precision, and for maps whose channels lie last in memory."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)  # kinds of devices


def at_least_float32(x: Tensor) -> Tensor:
    """Convert anything narrower than float32 to it; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def float64_device(device: torch.device) -> torch.device:
    """Return the device for float64 of a device's tensors: the same, or the CPU if the device has no float64."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def to_nhwc(x: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, H, W, C), which is the order of channels-last maps in memory.

    Sums over channels or positions are taken of this view: the gradient of x.mean(dim=1) would come in the other order,
    and to add it to another gradient is slow on a CPU.
    """
    return x.permute(0, 2, 3, 1)


def global_average_pool(x: Tensor) -> Tensor:
    """Average maps (B, C, H, W) over their positions, in float32 at least: (B, C)."""
    return at_least_float32(to_nhwc(x)).mean(dim=(1, 2))
