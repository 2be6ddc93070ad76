"""Activation checkpointing: memory for time (Chen et al., 2016)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

# Bytes of a map. Smaller ones save little memory and cost time: a bf16 step of 128 images of ResNet-20, whose largest
# maps have half as many, takes 5.6 steps of stage 1 with some of them made twice, and 4.7 with none.
LARGE = 2**24


@contextmanager
def statistics_kept(owner: nn.Module) -> Iterator[None]:
    """Leave the running statistics of a module's batch norms as they are, which normalise by the batch's own."""
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


def apply(compute: Callable[[Tensor], Tensor], x: Tensor, recompute: bool, owner: nn.Module) -> Tensor:
    """compute(x), of something without randomness; the same result, gradients and running statistics either way.

    Args:
        compute, x: what to apply to what.
        recompute: in training, of an x of LARGE bytes or more keep x alone for the backward pass, which then computes
            once more. A compiler is left to decide that itself.
        owner: the module whose batch norms take part.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(owner)

    if not (recompute and owner.training and x.nbytes >= LARGE) or torch.compiler.is_compiling():
        return compute(x)
    result: Tensor = checkpoint(compute, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return result
