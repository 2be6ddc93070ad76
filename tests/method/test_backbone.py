"""Every backbone of the table keeps the contract."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.registry import BACKBONES, BackboneEntry


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_gradient_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    torch.autograd.backward(backbone(torch.randn(2, 3, 64, 64)).pooled.square().sum())
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().amax() > 0, parameter_name


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_half_precision_is_pooled_in_float32(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = backbone(x).pooled
        with torch.autocast("cpu", torch.bfloat16):
            maps, pooled = backbone(x)
    assert maps[3].dtype == torch.bfloat16
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, plain, rtol=0, atol=0.06 * float(plain.abs().amax()))


@pytest.mark.parametrize("name", BACKBONES.entries)
def test_the_blocks_map_one_map_to_the_next(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        maps = backbone(x).maps
        for block in backbone.blocks:
            x = getattr(backbone, block)(x)
    assert torch.equal(x, maps[3]) or not backbone.blocks


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--backbone resnet21: choose resnet20, .* \(did you mean resnet20\?\)$"):
        build_backbone("resnet21")


class Narrow(Backbone):
    """A backbone of a plug-in whose attributes may be wrong."""

    def __init__(self, width: int, level_widths: tuple[int, ...]) -> None:
        super().__init__()
        self.width, self.level_widths = width, level_widths


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        (lambda: nn.Linear(1, 1), "it builds a Linear, and no Backbone"),
        (lambda: Narrow(4, (1, 2, 4)), r"level_widths \(1, 2, 4\) and width 4: four levels"),
        (lambda: Narrow(5, (1, 2, 3, 4)), r"level_widths \(1, 2, 3, 4\) and width 5: four levels"),
    ],
)
def test_a_builder_that_breaks_the_contract_is_named(
    builder: Callable[[], nn.Module], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES.entries, "broken", BackboneEntry(builder, "Broken"))
    with pytest.raises(M2sdError, match=f"^--backbone broken: {says}"):
        build_backbone("broken")
