"""Batch norm over the images of all processes, so that a batch has the same statistics however many share it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since every process's loss depends on it."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """What `nn.SyncBatchNorm` is on CUDA, for the CPU, where torch has none."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of this process to the same shape, normalised over (B, H, W) of all processes."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # Near zero after this, so that the mean of squares less the square of the mean loses nothing.
        near = x.float() - self.running_mean.view(1, -1, 1, 1)
        count = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        sums = [near.sum(dim=(0, 2, 3), dtype=torch.float64), near.square().sum(dim=(0, 2, 3), dtype=torch.float64)]
        count, first, second = _Sum.apply(torch.cat([count, *sums])).split([1, x.shape[1], x.shape[1]])
        mean = first / count
        variance = second / count - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_var.lerp_((variance * count / (count - 1)).float(), self.momentum)
            self.running_mean.add_(mean.float(), alpha=self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt().float()
        shift = self.bias - mean.float() * scale
        normalised: Tensor = near * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return normalised.to(x.dtype)


def share_statistics(module: nn.Module, device: torch.device) -> None:
    """Let every batch norm inside a module, which is on `device`, see the images of all processes.

    On CUDA by torch's own SyncBatchNorm, which waits for the device once a layer.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for each in module.modules():
        if type(each) is nn.BatchNorm2d:
            each.__class__ = SharedBatchNorm
