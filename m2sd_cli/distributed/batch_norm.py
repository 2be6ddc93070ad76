"""Batch norm over the images of all processes, so that the statistics of a batch do not depend on their number."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from m2sd_cli.errors import UsageError


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is such a sum, too, since every process's loss depends on it."""

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
    """Batch norm like `nn.SyncBatchNorm`, for the CPU, where torch has none."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps (B, C, H, W) of this process by the statistics of each channel over all processes."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # Near the running mean: the variance is a difference of squares, in which large means would lose digits.
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

    On CUDA it becomes torch's SyncBatchNorm, which waits for the device once a layer.

    Raises:
        UsageError: a batch norm is of another class, whose further work would be lost.
    """
    plain = (nn.BatchNorm2d, nn.SyncBatchNorm, SharedBatchNorm)
    norms = {type(each) for each in module.modules() if isinstance(each, _BatchNorm)}
    others = {each.__name__ for each in norms if each not in plain}
    if others:
        raise UsageError(f"this network's {', '.join(sorted(others))} cannot be shared by processes; train with one")
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = SharedBatchNorm
