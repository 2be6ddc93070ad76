"""Comparing the tensors of a file with those that it has to hold; a file may come from anywhere, and hold anything."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.reading import quoted


class TensorSpec(NamedTuple):
    """The shape of a tensor and the type of its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def tensor_specs(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, TensorSpec]:
    """Return the spec of each tensor, under its name with the prefix before it."""
    return {prefix + name: TensorSpec(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def find_mismatch(
    tensors: Mapping[str, Tensor],
    required: Mapping[str, TensorSpec],
    optional: Mapping[str, TensorSpec] | None = None,
    *,
    convertible: bool = False,
    most: int = 1,
) -> str | None:
    """Describe how the tensors of a file differ from those that it has to hold; None if they do not.

    Args:
        tensors: of the file.
        required: the tensors that have to be there.
        optional: further tensors that may be there; any other is a mismatch.
        convertible: accept floating-point and whole numbers of any precision, each in place of its own kind.
        most: differences to name; those beyond are counted.
    """
    mismatches = _mismatches(tensors, required, {**(optional or {}), **required}, convertible)
    named = list(islice(mismatches, most))
    more = sum(1 for _ in mismatches) if most > 1 else 0
    return ("; ".join(named) + (f" and {more} more" if more else "")) or None


def _mismatches(
    tensors: Mapping[str, Tensor],
    required: Mapping[str, TensorSpec],
    known: Mapping[str, TensorSpec],
    convertible: bool,
) -> Iterator[str]:
    yield from (f"{name} is missing" for name in sorted(required.keys() - tensors.keys()))
    for name, tensor in tensors.items():
        mismatch = _mismatch(tensor, known[name], convertible) if name in known else "does not belong there"
        if mismatch is not None:
            yield f"{name if name in known else repr(quoted(name))} {mismatch}"


def _mismatch(tensor: Tensor, spec: TensorSpec, convertible: bool) -> str | None:
    if tensor.shape != spec.shape:
        return f"has not the shape {spec.shape}"
    plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())
    alike = convertible and plain and tensor.is_floating_point() == spec.dtype.is_floating_point
    if tensor.dtype != spec.dtype and not alike:
        return f"is {_word(tensor.dtype)}, not {_word(spec.dtype)}"
    if not plain:
        return "is not made of plain numbers"
    return None if bool(tensor.to(spec.dtype).isfinite().all()) else "holds a number that is not finite"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
