"""The optimisers step as their papers say, and a state brings them back."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import m2sd_cli
from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.errors import M2sdError
from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import OPTIMIZERS, SCHEDULES, OptimizerEntry
from m2sd_cli.training.optimizers import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_rate,
)
from tests.helpers import QUICK, Stripes

RATES = (0.1, 0.1, 0.05)  # of three steps


class Scale(Backbone):
    level_widths = (1, 1, 1, 1)
    width = 1

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Features:
        return Features((x,) * 4, self.factor * x)


class Product(nn.Module):
    """w * factor * x, whose gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Scale()
        self.w = nn.Parameter(torch.tensor([3.0]))

    def forward(self, x: Tensor) -> Tensor:
        features: Features = self.backbone(x)
        return self.w * features.pooled


def steps(module: Product, optimizer: torch.optim.Optimizer) -> None:
    for rate in RATES:
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        torch.autograd.backward(module(torch.ones(1)).sum())
        optimizer.step()


def sgd_loop(config: PretrainConfig) -> Callable[[], Any]:
    def make() -> Callable[[float, float, float], float]:
        velocity = [0.0]

        def step(value: float, gradient: float, rate: float) -> float:
            gradient += config.weight_decay * value
            velocity[0] = config.momentum * velocity[0] + gradient
            return value - rate * (gradient + config.momentum * velocity[0])

        return step

    return make


def adamw_loop(config: PretrainConfig) -> Callable[[], Any]:
    def make() -> Callable[[float, float, float], float]:
        moments, count = [0.0, 0.0], itertools.count(1)

        def step(value: float, gradient: float, rate: float) -> float:
            number, first, second = next(count), config.momentum, 0.999
            moments[0] = first * moments[0] + (1 - first) * gradient
            moments[1] = second * moments[1] + (1 - second) * gradient**2
            mean, square = moments[0] / (1 - first**number), moments[1] / (1 - second**number)
            return value - rate * config.weight_decay * value - rate * mean / (math.sqrt(square) + 1e-8)

        return step

    return make


LOOPS = {"sgd": sgd_loop, "adamw": adamw_loop}


def test_every_optimiser_has_a_loop_to_be_compared_with() -> None:
    assert LOOPS.keys() == OPTIMIZERS.entries.keys()


@pytest.mark.parametrize("name", OPTIMIZERS.entries)
def test_an_optimiser_steps_as_a_plain_loop_does(name: str) -> None:
    config = PretrainConfig(epochs=1, optimizer=name, backbone_rate=0.25, weight_decay=0.1, momentum=0.8)
    module = Product()
    steps(module, build_optimizer(module, config, fused=True))
    factor, w = 2.0, 3.0
    step_factor, step_w = LOOPS[name](config)(), LOOPS[name](config)()
    for rate in RATES:
        factor, w = step_factor(factor, w, 0.25 * rate), step_w(w, factor, rate)
    assert [module.backbone.factor.item(), module.w.item()] == pytest.approx([factor, w], rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS.entries)
def test_a_restored_optimiser_goes_on_as_the_saved_one(name: str) -> None:
    config = PretrainConfig(epochs=1, optimizer=name)
    module = Product()
    optimizer = build_optimizer(module, config, fused=True)
    assert optimizer_tensors(optimizer, name, module) == {}
    steps(module, optimizer)
    tensors = {key: tensor.clone() for key, tensor in optimizer_tensors(optimizer, name, module).items()}
    assert len(tensors) == 2 * len(OPTIMIZERS[name].state)
    other = Product()
    other.load_state_dict(module.state_dict())
    restored = build_optimizer(other, config, fused=True)
    restore_optimizer(restored, name, other, tensors)
    steps(module, optimizer)
    steps(other, restored)
    assert all(map(torch.equal, module.parameters(), other.parameters()))


def test_a_state_of_another_shape_is_told_when_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    def nadam(groups: list[dict[str, Any]], config: PretrainConfig, _fused: bool) -> torch.optim.Optimizer:
        return torch.optim.NAdam(groups, lr=config.learning_rate)

    module = Product()
    for state, says in (
        ({"step.": "step", "mean.": "exp_avg", "square.": "exp_avg_sq"}, None),
        ({"mu.": "mu_product"}, r"its 'mu_product' of w is a tensor \(\); a state has tensors \(1,\)"),
    ):
        monkeypatch.setitem(OPTIMIZERS.entries, "nadam", OptimizerEntry(nadam, state, {}))
        optimizer = build_optimizer(module, PretrainConfig(epochs=1, optimizer="nadam"), fused=False)
        steps(module, optimizer)
        if says is None:
            assert len(optimizer_tensors(optimizer, "nadam", module)) == 2 * len(state)
        else:
            with pytest.raises(M2sdError, match=says):
                optimizer_tensors(optimizer, "nadam", module)


def test_half_a_state_is_refused() -> None:
    module = Product()
    optimizer = build_optimizer(module, PretrainConfig(epochs=1, optimizer="adamw"), fused=True)
    steps(module, optimizer)
    tensors = optimizer_tensors(optimizer, "adamw", module)
    del tensors["square.w"]
    with pytest.raises(ValueError, match=r"^square\.w is missing$"):
        restore_optimizer(optimizer, "adamw", module, tensors)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "backbone_rate": 0.1, "warmup_epochs": 0.5},
        *({"schedule": name} for name in SCHEDULES.entries if name != "cosine"),
    ],
)
def test_a_resumed_training_ends_as_one_that_was_never_stopped(
    stripes: Stripes, tmp_path: Path, options: dict[str, Any]
) -> None:
    asked: dict[str, Any] = QUICK | {"epochs": 2} | options
    whole = m2sd_cli.pretrain(stripes.folder, run=tmp_path / "whole", **asked)
    assert m2sd_cli.pretrain(stripes.folder, run=tmp_path / "parts", stop_after=0, **asked) is None
    parts = m2sd_cli.pretrain(stripes.folder, run=tmp_path / "parts", resume=True, device="cpu")
    assert whole is not None
    assert parts is not None
    assert whole.manifest.checkpoint == parts.manifest.checkpoint
    assert {name: whole.manifest.config[name] for name in options} == options
    assert RunFolder(tmp_path / "parts").pretrain().manifest.history == whole.manifest.history
