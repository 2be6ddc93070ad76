"""Gradients in bf16 of convolutions on maps of a pixel or so."""

import torch
from torch import Tensor, nn

from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.class_weights import ClassWeights
from m2sd_cli.method.network import Network
from m2sd_cli.progress import Reporter, report_to
from m2sd_cli.training.small_maps import is_computed_wrong, spare_small_maps

CPU = torch.device("cpu")


class Said(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def build(name: str) -> Network:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    return Network(backbone, ClassWeights(backbone.width, 3, "cosine", 16.0)).to(memory_format=torch.channels_last)


def spared(network: Network, size: int, precision: str = "bf16") -> tuple[list[str], list[str]]:
    """The convolutions that compute in float32 from now on, and the lines that were said."""
    said = Said()
    with report_to(said):
        spare_small_maps(nn.ModuleDict({"network": network}), size, CPU, precision)
    return [name for name, each in network.backbone.named_modules() if "forward" in vars(each)], said.lines


def gradient(network: Network, images: Tensor, name: str) -> Tensor:
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network(images).logits.float().square().sum()
    weight = network.backbone.get_parameter(name)
    unwritten = [torch.full((size,), float("nan")) for size in (weight.numel() // 2, weight.numel()) for _ in range(4)]
    del unwritten
    loss.backward()
    assert weight.grad is not None
    return weight.grad.clone()


def test_a_gradient_holds_no_memory_that_nobody_has_written() -> None:
    network = build("resnet18")
    names, said = spared(network, 8)
    assert "layer4.0.conv1" in names
    assert len(said) == 1
    assert "8 pixels" in said[0]
    assert "layer4.0.conv1" in said[0]
    images = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for name in names:
        one, two = (gradient(network, images, f"{name}.weight") for _ in range(2))
        assert torch.equal(one, two)
        assert one.isfinite().all()
    middle = gradient(network, images, "layer4.0.conv1.weight")
    middle[:, :, 1, 1] = 0
    assert not middle.any()  # the other taps meet nothing but padding


def test_usual_sizes_stay_as_they_are() -> None:
    for name, size in (("resnet20", 28), ("resnet18-cifar", 32), ("resnet18", 84), ("efficientnet-lite0", 96)):
        assert spared(build(name), size) == ([], [])
    network = build("resnet18")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    random = torch.get_rng_state()
    names, said = spared(network, 8, "fp32")
    assert names == []
    assert said[0].endswith("layer4.0.conv1")  # told, though it is computed right
    assert spared(network, 32) == ([], [])
    assert all(each.training for each in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_maps_smaller_than_the_kernel_are_found() -> None:
    def asked(kernel: int, stride: int, height: int, width: int) -> bool:
        return is_computed_wrong(nn.Conv2d(1, 1, kernel, stride, padding=kernel // 2), height, width)

    assert asked(3, 2, 1, 1)
    assert asked(3, 2, 2, 1)
    assert asked(5, 1, 1, 4)
    assert asked(7, 1, 2, 2)
    assert not any(asked(1, stride, 1, 1) for stride in (1, 2))
    assert not any(asked(3, 1, 1, width) for width in (1, 2, 4))
    assert not asked(3, 2, 2, 2)
    assert not asked(7, 2, 4, 4)
