"""Maps that are made twice instead of kept: the same results for less memory."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.resnet import BasicBlock
from m2sd_cli.training import recomputation
from m2sd_cli.training.recomputation import SHARE, apply, bytes_an_image, recompute_large_maps, spare_memory

WIDTHS = (4, 8, 8, 12)


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = zip(WIDTHS, (9, 5, 3, 2), strict=True)
    return [torch.randn(2, width, side, side, generator=generator) for width, side in sizes]


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputation, "LARGE", 0)


def images(side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


def held_bytes(held: dict[int, int]) -> torch.autograd.graph.saved_tensors_hooks:
    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("resnet20", 16), ("resnet12", 16), ("resnet50", 32)])
def test_a_backbone_is_the_same_but_for_what_it_holds(name: str, side: int, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    plain, spared = build_backbone(name), build_backbone(name)
    spared.load_state_dict(plain.state_dict())
    recompute_large_maps(spared)
    results, kept = [], []
    for backbone in (plain, spared):
        x = images(side).requires_grad_()
        for _ in range(2):
            held: dict[int, int] = {}
            with held_bytes(held), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                features = backbone(x)
            torch.autograd.backward(features.pooled.square().sum() + sum(each.float().sum() for each in features.maps))
        kept.append(sum(held.values()))
        gradients = [each.grad for each in (x, *backbone.parameters())]
        results.append([*features.maps, features.pooled, *gradients, *backbone.buffers()])
    for ours, again in zip(*results, strict=True):
        torch.testing.assert_close(again, ours, rtol=0, atol=0)
    counts = [tensor for name, tensor in spared.named_buffers() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {2}
    assert kept[1] < kept[0] * 0.8


class Counted(nn.Module):
    """A module that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return (self.scale * x).square()


@pytest.mark.parametrize(("training", "bytes_less", "passes"), [(True, 0, 2), (True, 1, 1), (False, 0, 1)])
def test_only_a_large_map_in_training_is_made_twice(
    monkeypatch: pytest.MonkeyPatch, training: bool, bytes_less: int, passes: int
) -> None:
    monkeypatch.setattr(recomputation, "LARGE", 4 * 100)
    module = Counted().train(training)
    x = torch.ones(100 - bytes_less)
    torch.autograd.backward(apply(module, module, x).sum())
    assert module.passes == passes
    assert module.scale.grad == 4 * len(x)


class Loss:
    """The loss of a block on a number of images, and the passes that were made."""

    def __init__(self) -> None:
        self.block = BasicBlock(3, 8, stride=2)
        self.passes: list[int] = []

    def __call__(self, images: int) -> Tensor:
        self.passes.append(images)
        torch.rand(1)  # as an objective might, from the generator of all
        loss: Tensor = self.block(torch.ones(images, 3, 8, 8)).square().sum()
        return loss

    def bytes_an_image(self) -> int:
        """Count the float32 numbers that the backward pass of an image takes, by hand."""
        image, map_ = 3 * 8 * 8, 8 * 4 * 4
        # The image; both convolutions of the block and the one beside it, each before its batch norm; the first ReLU;
        # the last one, which the square takes as well. The sum of both ways is not needed.
        return 4 * (image + 3 * map_ + map_ + map_)


def test_the_memory_of_an_image_is_that_of_the_maps_of_its_backward_pass() -> None:
    loss = Loss()
    state = {name: tensor.clone() for name, tensor in loss.block.state_dict().items()}
    drawn = torch.get_rng_state()
    assert bytes_an_image(loss.block, loss) == loss.bytes_an_image()
    torch.testing.assert_close(dict(loss.block.state_dict()), state, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_measurement_holds_nothing_for_good() -> None:
    loss = Loss()
    weight = weakref.ref(loss.block.conv1.weight)
    bytes_an_image(loss.block, loss)
    del loss
    gc.collect()
    assert weight() is None


def test_the_measurement_leaves_all_buffers_as_they_were() -> None:
    network = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 1)), nn.InstanceNorm2d(4, track_running_stats=True)
    )
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    bytes_an_image(network, lambda images: network(torch.rand(images, 3, 8, 8)).sum())
    torch.testing.assert_close(dict(network.state_dict()), state, rtol=0, atol=0)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("free", [None, -1, 0, 2**40])
def test_maps_are_made_twice_where_they_would_take_more_than_a_share_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    """`free` is the memory beyond the least that lets 7 images keep their maps; None is an unknown one."""
    loss = Loss()
    least = round(7 * loss.bytes_an_image() / SHARE)
    monkeypatch.setattr(recomputation, "memory", lambda: None if free is None else (2**50, least + free))
    network = nn.ModuleDict({"network": build_backbone("resnet20"), "block": loss.block})
    spare_memory(network, loss, images=7)
    first = network["network"].get_submodule("layer1")
    assert ("forward" in vars(first)) == (free is None or free < 0)


@pytest.mark.usefixtures("everything_is_large")
def test_a_network_that_is_trained_again_is_not_changed_twice() -> None:
    backbone = build_backbone("resnet20")
    recompute_large_maps(backbone)
    before = {name: vars(module).get("forward") for name, module in backbone.named_modules()}
    recompute_large_maps(nn.ModuleDict({"network": backbone}))
    assert {name: vars(module).get("forward") for name, module in backbone.named_modules()} == before


@pytest.mark.usefixtures("everything_is_large")
def test_statistics_are_taken_again_after_a_failed_backward_pass() -> None:
    block = BasicBlock(3, 8, stride=2)
    result = apply(block, block, images(8).requires_grad_())

    def fail(_: Tensor) -> Tensor:
        raise ValueError("a hook of the second pass")

    block.conv1.register_forward_hook(lambda *_: fail(result))
    with pytest.raises(ValueError, match="a hook of the second pass"):
        torch.autograd.backward(result.sum())
    assert [block.bn1.momentum, block.bn2.momentum] == [0.1, 0.1]
    assert int(block.bn1.num_batches_tracked or 0) == 1


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_feature_enhancement_is_the_same_but_for_what_it_holds(dtype: torch.dtype) -> None:
    kept: list[int] = []
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        enhancement = FeatureEnhancement(WIDTHS, classes=3)
        if recompute:
            recompute_large_maps(enhancement)
        phi = [each.requires_grad_() for each in maps()]
        if dtype == torch.float64:
            enhancement, phi = enhancement.double(), [each.detach().double().requires_grad_() for each in phi]
        held: dict[int, int] = {}

        with held_bytes(held), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            enhanced = enhancement(tuple(phi))
        torch.autograd.backward(enhanced.logits.square().sum() + sum(each.float().sum() for each in enhanced.maps))
        kept.append(sum(held.values()))
        gradients = [each.grad for each in (*phi, *enhancement.parameters())]
        results.append([enhanced.logits, *enhanced.maps, *gradients, *enhancement.buffers()])
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain, rtol=0, atol=0)
    assert kept[1] < kept[0] * 0.8
