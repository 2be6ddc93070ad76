"""Activation checkpointing: memory for time (Chen et al., 2016)."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def apply(module: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """module(x), of a module without randomness.

    Args:
        module, x: what to apply to what.
        recompute: keep x alone for the backward pass, which then applies the module once more. Its batch norms update
            their running statistics twice a step; they serve modules that are used in training only.
    """
    if not recompute:
        result: Tensor = module(x)
    else:
        result = checkpoint(module, x, use_reentrant=False, preserve_rng_state=False)
    return result
