"""Maps that are made twice instead of kept: the same results for less memory."""

import pytest
import torch
from torch import Tensor, nn

from m2sd_cli.method import recomputation
from m2sd_cli.method.backbones import BasicBlock, build_backbone
from m2sd_cli.method.recomputation import apply


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
@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("resnet20", 16)])
def test_a_backbone_is_the_same_but_for_what_it_holds(name: str, side: int, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    plain, spared = build_backbone(name), build_backbone(name)
    spared.load_state_dict(plain.state_dict())
    spared.recompute = True
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
    assert int(spared.bn1.num_batches_tracked or 0) == 2
    assert kept[1] < kept[0] * 0.8


class Counted(nn.Module):
    """How often it was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return (self.scale * x).square()


@pytest.mark.parametrize(
    ("recompute", "training", "bytes_less", "passes"),
    [(True, True, 0, 2), (True, True, 1, 1), (True, False, 0, 1), (False, True, 0, 1)],
)
def test_only_a_large_map_in_training_is_made_twice(
    monkeypatch: pytest.MonkeyPatch, recompute: bool, training: bool, bytes_less: int, passes: int
) -> None:
    monkeypatch.setattr(recomputation, "LARGE", 4 * 100)
    module = Counted().train(training)
    x = torch.ones(100 - bytes_less)
    torch.autograd.backward(apply(module, x, recompute, module).sum())
    assert module.passes == passes
    assert module.scale.grad == 4 * len(x)


@pytest.mark.usefixtures("everything_is_large")
def test_statistics_are_taken_again_after_a_failed_backward_pass() -> None:
    block = BasicBlock(3, 8, stride=2)
    result = apply(block, images(8).requires_grad_(), True, block)

    def fail(_: Tensor) -> Tensor:
        raise ValueError("a hook of the second pass")

    block.conv1.register_forward_hook(lambda *_: fail(result))
    with pytest.raises(ValueError, match="a hook of the second pass"):
        torch.autograd.backward(result.sum())
    assert [block.bn1.momentum, block.bn2.momentum] == [0.1, 0.1]
    assert int(block.bn1.num_batches_tracked or 0) == 1
