"""The objective of stage 2 of a configuration."""

import pytest
import torch

from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.training.distill import build_enhancement, distill_objective, loss_weights
from m2sd_cli.training.pretrain import build_network


@pytest.mark.parametrize("enhancement", ["full", "no-attention", "no-pyramid"])
@pytest.mark.parametrize(("mixing", "images"), [("both", 10), ("mixup", 5), ("cutmix", 5), ("none", 5)])
def test_branches_and_enhancement_are_those_of_the_configuration(mixing: str, images: int, enhancement: str) -> None:
    config = resolve(DistillConfig, Sources({"epochs": 1}, None, {"mixing": mixing, "enhancement": enhancement}))
    network = build_network(PretrainConfig(epochs=1, backbone="resnet20"), 3)
    weights = loss_weights(config)
    made = build_enhancement(network, config, weights)
    assert made is not None
    parts = {type(each).__name__ for each in made.modules()}
    assert ("SelfAttention" in parts, "BiFPN" in parts) == (enhancement != "no-attention", enhancement != "no-pyramid")
    seen: list[int] = []
    network.backbone.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    objective = distill_objective(network, made, config, weights)
    _, terms = objective(torch.randn(5, 3, 8, 8), torch.arange(5) % 3, torch.Generator(), slice(None))
    assert seen == [images]
    assert set(terms) == {"ce", "kd", "attention", "teacher", *(["kl"] if mixing == "both" else [])}
