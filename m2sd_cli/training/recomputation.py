"""Activation checkpointing: memory for time (Chen et al., 2016)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from m2sd_cli.host import memory
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.enhancement import FeatureEnhancement

LARGE = 2**24  # bytes of a map; smaller ones save little memory and cost time
SHARE = 0.5  # of the free memory, which the maps of a step may take: other programs and gradients need some, too
PROBES = (2, 4)  # images


def spare_memory(module: nn.Module, forward: Callable[[int], object], images: int) -> None:
    """Have a training keep no large map if all maps of a step would not fit, or if the free memory is unknown.

    Args:
        module: the trained one, in training mode.
        forward: the computation of the loss of a number of images.
        images: of a step.
    """
    known = memory()
    if known is None or images * bytes_an_image(module, forward) > SHARE * known[1]:
        recompute_large_maps(module)


def bytes_an_image(module: nn.Module, forward: Callable[[int], object]) -> float:
    """Measure the memory that the backward pass of one image needs, on few images; see `spare_memory`."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        # The difference leaves out weights, and their copies in another precision.
        fewer, more = (_held_bytes(partial(forward, count)) for count in PROBES)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name in before and buffer.shape == before[name].shape:  # else the first pass has made it
                buffer.copy_(before[name])
    return (more - fewer) / (PROBES[1] - PROBES[0])


def _held_bytes(forward: Callable[[], object]) -> int:
    held: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that saves its own result would hold itself for good

    with saved_tensors_hooks(hold, lambda tensor: tensor):
        result = forward()  # holds the tensors, so that no two of them are in one place
    del result
    return sum(held.values())


def recompute_large_maps(module: nn.Module) -> None:
    """Have networks and enhancements keep no large map inside a block: the backward pass computes the block again.

    Results, gradients and running statistics are the same bit for bit.
    """
    for part in list(module.modules()):
        if isinstance(part, Backbone):
            for name in part.blocks:
                block = getattr(part, name)
                if isinstance(block, nn.Module):
                    _recompute(block, "forward")
                else:
                    _recompute(part, name)
        elif isinstance(part, FeatureEnhancement):
            for block in part.blocks():
                _recompute(block, "forward")


def _recompute(owner: nn.Module, name: str) -> None:
    compute = getattr(owner, name)
    if not (isinstance(compute, partial) and compute.func is apply):  # else an earlier training has done so
        vars(owner)[name] = partial(apply, compute, owner)


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
