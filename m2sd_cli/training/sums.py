"""What an epoch adds up on the device, and the step from which on it is no number any more."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

NEVER = 2**62


class Sums:
    """Sums of an epoch, to which every step adds without waiting for the device.

    Args:
        device: where they are kept.
        start: of an epoch that is gone on with.
    """

    def __init__(self, device: torch.device, start: Mapping[str, float]) -> None:
        self._names = list(start)
        self._sums = torch.tensor(list(start.values()), dtype=torch.float32, device=device)
        self._ended = torch.full(self._sums.shape, NEVER, device=device)

    def add(self, names: Sequence[str], values: Tensor, step: int) -> None:
        """Add the values (N,) of a step, counted from 1; every step of an epoch names the same ones."""
        if not self._names:
            self._names = list(names)
            self._sums = torch.zeros_like(values)
            self._ended = torch.full(values.shape, NEVER, device=values.device)
        self._sums = self._sums + values
        # A sum that is not finite stays so: the step that made it so is the first of the epoch.
        self._ended = torch.where(self._sums.isfinite(), self._ended, self._ended.clamp_max(step))

    def read(self) -> dict[str, float]:
        """The sums on the host: one wait for the device."""
        return dict(zip(self._names, self._sums.tolist(), strict=True))

    def end(self) -> tuple[int, list[str]]:
        """The first step after which a sum was no finite number, and the names of all for which that step was it."""
        ended = self._ended.tolist()
        step = min(ended)
        return step, [name for name, each in zip(self._names, ended, strict=True) if each == step]


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether every number of every tensor is finite: one wait for the device."""
    return bool(torch.stack([each.isfinite().all() for each in tensors.values()]).all())
