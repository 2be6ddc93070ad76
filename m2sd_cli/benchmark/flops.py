"""Floating-point operations of a computation, counted as torch runs it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def count_flops(compute: Callable[[], object]) -> int:
    """Count FLOPs of convolutions, matrix products and attention in a computation, its backward pass included.

    A multiplication and an addition are two. Pointwise operations, norms and augmentation are not counted.
    """
    # Torch counts fused attention on CUDA alone.
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        compute()
    return int(counter.get_total_flops())


def _attention(query: tuple[int, ...], key: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Count the scores and the means of values, for query (B, heads, N, D), key and value (B, heads, M, D)."""
    batch, heads, length, width = query
    return 2 * 2 * batch * heads * length * width * key[2]


def _attention_backward(_: object, query: tuple[int, ...], key: tuple[int, ...], *__: Any, **___: Any) -> int:
    """Count five products where the forward has two, the scores being computed once more."""
    return _attention(query, key) * 5 // 2
