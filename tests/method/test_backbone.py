"""Every backbone of the table keeps the contract."""

import pytest
import torch

from m2sd_cli.errors import UsageError
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.registry import BACKBONES


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
