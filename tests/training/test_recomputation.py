"""Maps that are made twice instead of kept: the same results for less memory."""

import pytest
import torch
from torch import Tensor, nn

from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.resnet import BasicBlock
from m2sd_cli.training import recomputation
from m2sd_cli.training.recomputation import apply, recompute_large_maps

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
    recompute_large_maps(spared, None)
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
            recompute_large_maps(build_backbone("resnet20"), enhancement)
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
