"""ResNet-12 against its definition, written out with torch's functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.backbone import build_backbone


def plain_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def plain_block(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    y = x
    for number in (1, 2, 3):
        y = F.conv2d(F.pad(y, (1, 1, 1, 1)), state[f"{name}.conv{number}.weight"])
        y = plain_norm(y, state, f"{name}.bn{number}")
        if number < 3:
            y = torch.where(y > 0, y, 0.1 * y)
    shortcut = torch.einsum("bchw,oc->bohw", x, state[f"{name}.downsample.0.weight"][:, :, 0, 0])
    y = y + plain_norm(shortcut, state, f"{name}.downsample.1")
    y = torch.where(y > 0, y, 0.1 * y)
    height, width = y.shape[2] // 2, y.shape[3] // 2
    return y[:, :, : 2 * height, : 2 * width].reshape(*y.shape[:2], height, 2, width, 2).amax(dim=(3, 5))


def test_the_maps_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet12").double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)
        x = torch.randn(2, 3, 37, 32, dtype=torch.float64, generator=generator)
        maps, pooled = backbone(x)
        for number, map_ in enumerate(maps, start=1):
            x = plain_block(x, dict(backbone.state_dict()), f"layer{number}.0")
            torch.testing.assert_close(map_, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pooled, x.flatten(2).mean(dim=2), rtol=1e-10, atol=1e-10)


def test_it_has_twelve_million_parameters() -> None:
    """Counted by hand: three 3x3 convolutions, a 1x1 shortcut, and two numbers a channel of four norms."""
    expected, before = 0, 3
    for width in (64, 160, 320, 640):
        expected += 9 * width * (before + 2 * width) + before * width + 8 * width
        before = width
    count = sum(each.numel() for each in build_backbone("resnet12").parameters())
    assert count == expected
    assert round(count / 1e6, 1) == 12.4
