"""The builders of the table OPTIMIZERS, and the tensors of an optimiser by name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.registry import load
from m2sd_cli.tables import OPTIMIZERS

RELATIVE = "relative_rate"  # of a group of parameters: its learning rate over that of W


def build_optimizer(module: nn.Module, config: PretrainConfig | DistillConfig, fused: bool) -> torch.optim.Optimizer:
    """Build the optimiser of a module, with the parameters of its backbone in a group of their own."""
    of_backbone = {
        id(parameter) for part in module.modules() if isinstance(part, Backbone) for parameter in part.parameters()
    }
    rest = [parameter for parameter in module.parameters() if id(parameter) not in of_backbone]
    backbone = [parameter for parameter in module.parameters() if id(parameter) in of_backbone]
    groups = [{"params": rest, RELATIVE: 1.0}, {"params": backbone, RELATIVE: config.backbone_rate}]
    build = load(OPTIMIZERS[config.optimizer].builder)
    optimizer: torch.optim.Optimizer = build([group for group in groups if group["params"]], config, fused)
    return optimizer


def sgd(groups: list[dict[str, Any]], config: PretrainConfig | DistillConfig, fused: bool) -> torch.optim.SGD:
    """Build SGD with Nesterov's momentum (Sutskever et al., 2013)."""
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
        fused=fused,
    )


def adamw(groups: list[dict[str, Any]], config: PretrainConfig | DistillConfig, fused: bool) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov & Hutter, 2019), whose beta_1 is the momentum."""
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.momentum, 0.999), weight_decay=config.weight_decay, fused=fused
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of W, and the backbone's in proportion to it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[RELATIVE]


def optimizer_tensors(optimizer: torch.optim.Optimizer, name: str, module: nn.Module) -> dict[str, Tensor]:
    """Collect the tensors that an optimiser keeps for the next step; a parameter without a step has none.

    Args:
        name: of the optimiser in the table OPTIMIZERS.
        module: with the parameters that it optimises.

    Raises:
        M2sdError: an optimiser of another package keeps something else, with which no training could go on.
    """
    tensors = {}
    for prefix, key, of, parameter in _kept(name, module):
        if key in optimizer.state[parameter]:
            tensor = optimizer.state[parameter][key]
            shape = () if key == "step" else parameter.shape
            if not isinstance(tensor, Tensor) or tensor.shape != shape:
                found = f"a tensor {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                raise OPTIMIZERS.broken(name, f"its {key!r} of {of} is {found}; a state has tensors {tuple(shape)}")
            tensors[prefix + of] = tensor
    return tensors


def optimizer_likes(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a tensor of the same shape and type for each one that `optimizer_tensors` can collect, by its name."""
    scalar = torch.zeros(())
    return {prefix + of: scalar if key == "step" else parameter for prefix, key, of, parameter in _kept(name, module)}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, name: str, module: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Give an optimiser the tensors that `optimizer_tensors` collected.

    Raises:
        ValueError: some of a parameter's tensors are missing, and not all.
    """
    for prefix, key, of, parameter in _kept(name, module):
        if prefix + of in tensors:
            like = torch.zeros((), device=parameter.device) if key == "step" else torch.empty_like(parameter)
            optimizer.state[parameter][key] = like.copy_(tensors[prefix + of])
        elif any(other + of in tensors for other in OPTIMIZERS[name].state):
            raise ValueError(f"{prefix}{of} is missing")


def _kept(name: str, module: nn.Module) -> Iterator[tuple[str, str, str, nn.Parameter]]:
    """Yield the prefix and torch's key of each tensor that may be kept, with the name and parameter it belongs to."""
    for of, parameter in module.named_parameters():
        for prefix, key in OPTIMIZERS[name].state.items():
            yield prefix, key, of, parameter
