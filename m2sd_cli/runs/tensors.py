"""Whether a file holds exactly the tensors that it must: it may hold anything, and come from anywhere."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.reading import quoted


class TensorSpec(NamedTuple):
    """The shape of a tensor and the type of its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def tensor_specs(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, TensorSpec]:
    """The shape and type of each tensor, under its name with the prefix before it."""
    return {prefix + name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def find_mismatch(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, TensorSpec], allowed: Mapping[str, TensorSpec] | None = None
) -> str | None:
    """What is wrong with the tensors of a file, or None.

    Args:
        tensors: as they were read.
        wanted: what has to be there.
        allowed: what may be there beside it, and nothing else.
    """
    known = {**(allowed or {}), **wanted}
    for name in wanted.keys() - tensors.keys():
        return f"{name} is missing"
    for name, tensor in tensors.items():
        if name not in known:
            return f"{quoted(name)!r} does not belong there"
        shape, dtype = known[name]
        if tensor.shape != shape:
            return f"{name} has not the shape {shape}"
        if tensor.dtype != dtype:
            return f"{name} is {_word(tensor.dtype)}, not {_word(dtype)}"
        if not bool(tensor.isfinite().all()):
            return f"{name} holds a number that is not finite"
    return None


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
