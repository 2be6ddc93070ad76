"""Where half precision would hurt, and where the order of dimensions does."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """float32 of anything narrower; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


WITHOUT_FLOAT64 = ("mps",)  # kinds of devices


def float64_device(device: torch.device) -> torch.device:
    """Where float64 of a device's tensors can be: there, or on the CPU if the device has none."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def to_nhwc(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C), which is how channels-last maps lie in memory; a view.

    A sum over channels or positions is taken of this: the gradient of x.mean(dim=1) would come in the other order, and
    adding it to another one take up to 18 times as long on a CPU.
    """
    return x.permute(0, 2, 3, 1)
