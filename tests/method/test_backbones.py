"""The backbones against torchvision's networks of the same weights."""

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from m2sd_cli.method.backbones import ARCHITECTURES, Backbone, build_backbone, load_initial_weights

LEVELS = {
    ("resnet20", 32): [(16, 32), (16, 32), (32, 16), (64, 8)],
    ("resnet18-cifar", 32): [(64, 32), (128, 16), (256, 8), (512, 4)],
    ("resnet18", 32): [(64, 8), (128, 4), (256, 2), (512, 1)],
    ("resnet18", 84): [(64, 21), (128, 11), (256, 6), (512, 3)],
    ("resnet18", 224): [(64, 56), (128, 28), (256, 14), (512, 7)],
    ("resnet20", 21): [(16, 21), (16, 21), (32, 11), (64, 6)],
    ("resnet18-cifar", 33): [(64, 33), (128, 17), (256, 9), (512, 5)],
    ("resnet18", 33): [(64, 9), (128, 5), (256, 3), (512, 2)],
}


def images(side: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def randomise(module: nn.Module) -> None:
    """Every parameter and running statistic away from its start, where a wrong one could hide."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)


def torchvision_resnet18() -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = torchvision.models.resnet18(weights=None)
    randomise(model)
    return model


def torchvision_stages(name: str) -> nn.Sequential:
    """The network of that name without an ImageNet stem, made of torchvision's own blocks."""
    architecture = ARCHITECTURES[name]
    first = architecture.widths[0]
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, first, 3, padding=1, bias=False))
    model.add_module("bn1", nn.BatchNorm2d(first))
    model.add_module("relu", nn.ReLU())
    before = first
    for number, (width, blocks) in enumerate(zip(architecture.widths, architecture.blocks, strict=True), start=1):
        stage = nn.Sequential()
        for block in range(blocks):
            stride = 2 if number > 1 and block == 0 else 1
            shortcut = None
            if stride != 1 or before != width:
                shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            stage.append(TorchvisionBlock(before, width, stride, shortcut))
            before = width
        model.add_module(f"layer{number}", stage)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_resnet18_is_torchvisions(training: bool) -> None:
    theirs, ours = torchvision_resnet18(), build_backbone("resnet18")
    load_initial_weights(ours, theirs.state_dict())
    theirs.fc = nn.Identity()
    x = images(65)
    with torch.no_grad():
        torch.testing.assert_close(ours.train(training)(x).pooled, theirs.train(training)(x))


def test_resnet18_has_torchvisions_names_and_shapes() -> None:
    theirs = {n: t.shape for n, t in torchvision_resnet18().state_dict().items() if not n.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in build_backbone("resnet18").state_dict().items()} == theirs


@pytest.mark.parametrize("name", ["resnet20", "resnet18-cifar"])
def test_the_cifar_networks_are_made_of_torchvisions_blocks(name: str) -> None:
    torch.manual_seed(1)
    theirs, ours = torchvision_stages(name), build_backbone(name)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = images(17)
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
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(result.pooled, expected[-1].flatten(2).mean(dim=2))


@pytest.mark.parametrize(("name", "side"), LEVELS)
def test_the_four_maps_and_the_pooled_feature(name: str, side: int) -> None:
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        maps, pooled = backbone(images(side, batch=1))
    expected = LEVELS[name, side]
    assert [tuple(each.shape) for each in maps] == [(1, width, at, at) for width, at in expected]
    assert backbone.architecture.level_widths == tuple(width for width, _ in expected)
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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradient_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    torch.autograd.backward(backbone(images(32)).pooled.square().sum())
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().amax() > 0, parameter_name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_convolutions_start_with_the_variance_of_he(name: str) -> None:
    torch.manual_seed(0)
    for module in build_backbone(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.06)


def test_an_unknown_backbone_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="resnet99"):
        build_backbone("resnet99")


def own_state(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def test_initial_weights_leave_out_a_classifier_and_batch_counts() -> None:
    backbone = build_backbone("resnet20")
    state = {
        name: torch.rand_like(tensor)
        for name, tensor in backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    load_initial_weights(backbone, {**state, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)})
    for name, tensor in state.items():
        assert torch.equal(backbone.state_dict()[name], tensor)


def test_initial_weights_are_copied_not_shared() -> None:
    backbone = build_backbone("resnet20")
    state = own_state(backbone)
    load_initial_weights(backbone, state)
    state["conv1.weight"].zero_()
    assert backbone.state_dict()["conv1.weight"].abs().amax() > 0


def test_wrong_initial_weights_are_refused_by_name_and_change_nothing() -> None:
    backbone = build_backbone("resnet20")
    before = own_state(backbone)
    good = {name: tensor + 1 for name, tensor in before.items()}

    missing = {name: tensor for name, tensor in good.items() if name != "layer2.0.conv1.weight"}
    with pytest.raises(ValueError, match=r"^layer2\.0\.conv1\.weight is missing$"):
        load_initial_weights(backbone, missing)
    with pytest.raises(ValueError, match=r"^layer9\.weight is unknown$"):
        load_initial_weights(backbone, {**good, "layer9.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"^bn1\.bias has shape \(3,\), not \(16,\)$"):
        load_initial_weights(backbone, {**good, "bn1.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"^bn1\.bias has .*; layer2\.0\.conv1\.weight is missing; layer9\.weight is"):
        load_initial_weights(backbone, {**missing, "bn1.bias": torch.zeros(3), "layer9.weight": torch.zeros(1)})

    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("tensor", "wrong"),
    [
        (torch.zeros(16, dtype=torch.complex64), "is not made of plain numbers"),
        (torch.zeros(16, dtype=torch.int64), "is not made of plain numbers"),
        (torch.zeros(16).to_sparse(), "is not made of plain numbers"),
        (torch.zeros(16, device="meta"), "is not made of plain numbers"),
        (torch.full((16,), float("nan")), "holds a number that is not finite"),
        (torch.full((16,), 1e300, dtype=torch.float64), "holds a number that is not finite"),
    ],
)
def test_initial_weights_of_another_kind_are_refused(tensor: torch.Tensor, wrong: str) -> None:
    backbone = build_backbone("resnet20")
    with pytest.raises(ValueError, match=rf"^bn1\.bias {wrong}$"):
        load_initial_weights(backbone, {**own_state(backbone), "bn1.bias": tensor})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_initial_weights_may_be_wider_or_narrower(dtype: torch.dtype) -> None:
    backbone = build_backbone("resnet20")
    load_initial_weights(backbone, {**own_state(backbone), "bn1.bias": torch.full((16,), 0.5).to(dtype)})
    assert backbone.bn1.bias.tolist() == [0.5] * 16


def test_a_long_list_of_wrong_weights_is_cut() -> None:
    expected = len([name for name in build_backbone("resnet18").state_dict() if "num_batches" not in name])
    with pytest.raises(ValueError, match=rf"^bn1\.bias is missing; .*; .* and {expected - 3} more$"):
        load_initial_weights(build_backbone("resnet18"), {})
