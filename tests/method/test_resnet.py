"""The residual networks against torchvision's of the same weights."""

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from m2sd_cli.method.backbone import build_backbone

LEVELS = {
    ("resnet20", 32): [(16, 32), (16, 32), (32, 16), (64, 8)],
    ("resnet18-cifar", 32): [(64, 32), (128, 16), (256, 8), (512, 4)],
    ("resnet18", 32): [(64, 8), (128, 4), (256, 2), (512, 1)],
    ("resnet18", 84): [(64, 21), (128, 11), (256, 6), (512, 3)],
    ("resnet18", 224): [(64, 56), (128, 28), (256, 14), (512, 7)],
    ("resnet20", 21): [(16, 21), (16, 21), (32, 11), (64, 6)],
    ("resnet18-cifar", 33): [(64, 33), (128, 17), (256, 9), (512, 5)],
    ("resnet18", 33): [(64, 9), (128, 5), (256, 3), (512, 2)],
    ("resnet34", 33): [(64, 9), (128, 5), (256, 3), (512, 2)],
    ("resnet50", 33): [(256, 9), (512, 5), (1024, 3), (2048, 2)],
    ("resnet50", 64): [(256, 16), (512, 8), (1024, 4), (2048, 2)],
    ("resnet12", 32): [(64, 16), (160, 8), (320, 4), (640, 2)],
    ("resnet12", 33): [(64, 16), (160, 8), (320, 4), (640, 2)],
    ("resnet12", 84): [(64, 42), (160, 21), (320, 10), (640, 5)],
    ("resnet12", 8): [(64, 4), (160, 2), (320, 1), (640, 1)],
}
TORCHVISION = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
}
CIFAR = {"resnet20": ((16, 32, 64), 3), "resnet18-cifar": ((64, 128, 256, 512), 2)}  # widths, and blocks in a layer


def images(side: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def randomise(module: nn.Module) -> None:
    """Every parameter and running statistic away from its start, where a wrong one could hide."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)


def torchvision_network(name: str) -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = TORCHVISION[name](weights=None)
    randomise(model)
    return model


def torchvision_stages(name: str) -> nn.Sequential:
    """The network of that name without an ImageNet stem, made of torchvision's own blocks."""
    widths, blocks = CIFAR[name]
    before = widths[0]
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, before, 3, padding=1, bias=False))
    model.add_module("bn1", nn.BatchNorm2d(before))
    model.add_module("relu", nn.ReLU())
    for number, width in enumerate(widths, start=1):
        layer = nn.Sequential()
        for block in range(blocks):
            stride = 2 if number > 1 and block == 0 else 1
            shortcut = None
            if stride != 1 or before != width:
                shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            layer.append(TorchvisionBlock(before, width, stride, shortcut))
            before = width
        model.add_module(f"layer{number}", layer)
    return model


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("training", [False, True])
def test_the_networks_of_torchvision(name: str, training: bool) -> None:
    theirs, ours = torchvision_network(name).double(), build_backbone(name).double()
    state = {key: tensor for key, tensor in theirs.state_dict().items() if not key.startswith("fc.")}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == {k: t.shape for k, t in state.items()}
    ours.load_state_dict(state)
    theirs.fc = nn.Identity()
    x = images(65).double()
    with torch.no_grad():
        expected = theirs.train(training)(x)
        torch.testing.assert_close(ours.train(training)(x).pooled, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CIFAR)
def test_the_cifar_networks_are_made_of_torchvisions_blocks(name: str) -> None:
    torch.manual_seed(1)
    theirs, ours = torchvision_stages(name).double(), build_backbone(name).double()
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = images(17).double()
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        result = ours(x)
        expected = []
        for stage, module in theirs.named_children():
            x = module(x)
            if stage.startswith("layer") or (stage == "relu" and name == "resnet20"):
                expected.append(x.clone())
    assert len(expected) == 4
    for own, other in zip(result.maps, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(result.pooled, expected[-1].flatten(2).mean(dim=2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "side"), LEVELS)
def test_the_four_maps_and_the_pooled_feature(name: str, side: int) -> None:
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        maps, pooled = backbone(images(side, batch=1))
    expected = LEVELS[name, side]
    assert [tuple(each.shape) for each in maps] == [(1, width, at, at) for width, at in expected]
    assert backbone.level_widths == tuple(width for width, _ in expected)
    assert backbone.width == expected[-1][0]
    plain = [sum(channel) / len(channel) for channel in maps[3][0].double().flatten(1).tolist()]
    torch.testing.assert_close(pooled, torch.tensor([plain]))


def test_later_work_does_not_overwrite_an_earlier_map() -> None:
    """ReLU works in place; a map that it had changed afterwards would hold the next block's numbers."""
    backbone = build_backbone("resnet20").eval()
    kept: list[Tensor] = []
    for number in (1, 2, 3):
        backbone.get_submodule(f"layer{number}").register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    with torch.no_grad():
        maps = backbone(images(16)).maps
    for map_, at_once in zip(maps[1:], kept, strict=True):
        assert torch.equal(map_, at_once)


def test_resnet20_has_270_thousand_parameters() -> None:
    """Counted by hand: convolutions, two numbers a channel of each norm, 1x1 shortcuts where the width changes."""
    expected = 3 * 9 * 16 + 2 * 16
    before = 16
    for width in (16, 32, 64):
        for _ in range(3):
            expected += before * 9 * width + width * 9 * width + 4 * width
            if before != width:
                expected += before * width + 2 * width
            before = width
    count = sum(each.numel() for each in build_backbone("resnet20").parameters())
    assert count == expected
    assert round(count / 1e6, 2) == 0.27


@pytest.mark.parametrize("name", [*TORCHVISION, *CIFAR, "resnet12"])
def test_convolutions_start_with_the_variance_of_he(name: str) -> None:
    torch.manual_seed(0)
    for module in build_backbone(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.06)
