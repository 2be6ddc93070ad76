"""Batch normalisation as a part of convolutions, which saves a pass over each map at inference."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Net = TypeVar("Net", bound=nn.Module)


def folded_copy(network: Net) -> Net:
    """Copy a network in eval mode, and fold its batch normalisations into its convolutions.

    A batch normalisation goes into the convolution that is registered before it in the same module. It has to be the
    only one that takes the output of this convolution. The copy computes the same up to rounding.
    """
    with torch.inference_mode(False), torch.no_grad():
        network = copy.deepcopy(network)
        for module in list(network.modules()):
            _fold_children(module)
    return network


def _fold_children(module: nn.Module) -> None:
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        before = name, child
