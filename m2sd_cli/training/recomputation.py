"""Activation checkpointing: memory for time (Chen et al., 2016)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.enhancement import FeatureEnhancement

LARGE = 2**24  # bytes of a map; smaller ones save little memory and cost time


def recompute_large_maps(backbone: Backbone, enhancement: FeatureEnhancement | None) -> None:
    """Have stage 2 keep no large map inside a block: the backward pass computes the block again.

    Results, gradients and running statistics are the same bit for bit.
    """
    for name in backbone.blocks:
        block = getattr(backbone, name)
        if isinstance(block, nn.Module):
            _recompute_module(block)
        else:
            vars(backbone)[name] = partial(apply, block, backbone)
    for module in [] if enhancement is None else enhancement.blocks():
        _recompute_module(module)


def _recompute_module(module: nn.Module) -> None:
    vars(module)["forward"] = partial(apply, module.forward, module)


def apply(compute: Callable[[Tensor], Tensor], owner: nn.Module, x: Tensor) -> Tensor:
    """compute(x); in training, of an x of LARGE bytes or more, x alone is kept for the backward pass.

    Under a compiler compute(x) is plain: the compiler decides itself which maps to keep.

    Args:
        compute: a function without randomness.
        owner: the module whose batch norms take part.
        x: a map.
    """
    if not (owner.training and x.nbytes >= LARGE) or torch.compiler.is_compiling():
        return compute(x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(owner)

    result: Tensor = checkpoint(compute, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return result


@contextmanager
def statistics_kept(owner: nn.Module) -> Iterator[None]:
    """Keep the running statistics of a module's batch norms as they are; batches are still normalised by their own."""
    norms = [each for each in owner.modules() if isinstance(each, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone() if norm.num_batches_tracked is not None else None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
