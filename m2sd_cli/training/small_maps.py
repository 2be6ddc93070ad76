"""Convolutions on maps of a pixel or so, which see little, and whose gradients in bf16 a CPU does not compute right."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from m2sd_cli import progress
from m2sd_cli.method.network import Network


def spare_small_maps(module: nn.Module, size: int, device: torch.device, precision: str) -> None:
    """Warn of maps smaller than their kernels; on a CPU have these convolutions compute in float32 rather than bf16.

    In bf16 oneDNN leaves those taps of the gradient unwritten that meet nothing but padding.

    Args:
        module: the trained one; the convolutions of its networks' backbones are looked at.
        size: side of the images in pixels.
        device: of the module.
        precision: fp32 or bf16.
    """
    wrong: dict[str, nn.Conv2d] = {}
    for network in [each for each in module.modules() if isinstance(each, Network)]:
        wrong |= _wrong_convolutions(network.backbone, torch.zeros(1, 3, size, size, device=device))
    if not wrong:
        return
    instead = ""
    if device.type == "cpu" and precision == "bf16":
        instead = ", which compute in fp32, since a CPU gives them wrong gradients in bf16"
        for convolution in wrong.values():
            vars(convolution)["forward"] = partial(_in_float32, convolution.forward)
    progress.say(
        f"images of {size} pixels are very small for this network: maps are smaller than the kernels of "
        f"{', '.join(wrong)}{instead}"
    )


def is_computed_wrong(convolution: nn.Conv2d, height: int, width: int) -> bool:
    """Tell whether the bf16 gradient of the weights of a convolution may be wrong for a map of this size."""
    if isinstance(convolution.padding, str) or (max(convolution.kernel_size) == 3 and max(convolution.stride) == 1):
        return False  # another kernel computes these, and writes all of the gradient
    return min(height, width) <= max(convolution.padding)


def _wrong_convolutions(backbone: nn.Module, images: Tensor) -> dict[str, nn.Conv2d]:
    """Find the convolutions whose input maps are too small, by their names."""
    found: dict[str, nn.Conv2d] = {}

    def look(name: str, convolution: nn.Conv2d, inputs: tuple[Any, ...]) -> None:
        if is_computed_wrong(convolution, *inputs[0].shape[-2:]):
            found[name] = convolution

    hooks = [
        each.register_forward_pre_hook(partial(look, name))
        for name, each in backbone.named_modules()
        if isinstance(each, nn.Conv2d)
    ]
    modes = {each: each.training for each in backbone.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            backbone.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for each, training in modes.items():
            each.training = training
    return found


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())
