"""Sums over an epoch on the device, and the step at which one stopped being finite."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

NEVER = 2**62


class Sums:
    """Sums of an epoch, to which every step adds without waiting for the device.

    Args:
        start: the sums so far of an epoch that is resumed.
    """

    def __init__(self, device: torch.device, start: Mapping[str, float]) -> None:
        self._names = list(start)
        self._sums = torch.tensor(list(start.values()), dtype=torch.float32, device=device)
        self._ended = torch.full(self._sums.shape, NEVER, device=device)

    def add(self, names: Sequence[str], values: Tensor, step: int) -> None:
        """Add the values (N,) of a step, counted from 1; the names are the same in every step of an epoch."""
        if not self._names:
            self._names = list(names)
            self._sums = torch.zeros_like(values)
            self._ended = torch.full(values.shape, NEVER, device=values.device)
        self._sums = self._sums + values
        # A sum that is not finite stays so: the smallest step is the one that made it so.
        self._ended = torch.where(self._sums.isfinite(), self._ended, self._ended.clamp_max(step))

    def read(self) -> dict[str, float]:
        """Wait for the device, and return the sums by name."""
        return dict(zip(self._names, self._sums.tolist(), strict=True))

    def end(self) -> tuple[int, list[str]]:
        """Return the first step after which a sum was not finite, and the names of those sums."""
        ended = self._ended.tolist()
        step = min(ended)
        return step, [name for name, last in zip(self._names, ended, strict=True) if last == step]


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether every number of every tensor is finite; each device is waited for once.

    An optimiser may keep its count of steps on the CPU, beside moments on a device.
    """
    found: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors.values():
        found.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(each).all()) for each in found.values())
