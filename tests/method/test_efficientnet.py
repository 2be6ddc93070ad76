"""EfficientNet-Lite0 against its definition, written out with torch's functions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.efficientnet import EfficientNetLite0, published_names

# Depth, kernel, stride, expansion and width of each stage, as the paper's table 1 has them for B0.
TABLE = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def same_convolution(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's "same": as many outputs as inputs / stride, rounded up; the odd pixel of padding comes last."""
    for dimension in (-1, -2):
        size, kernel = x.shape[dimension], weight.shape[dimension]
        padding = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
        before, after = padding // 2, padding - padding // 2
        x = F.pad(x, (before, after) if dimension == -1 else (0, 0, before, after))
    return F.conv2d(x, weight, stride=stride, groups=groups)


class Published:
    """The network as the published names describe it."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * weight + bias

    def convolve(self, x: Tensor, name: str, norm: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        groups = x.shape[1] if depthwise else 1
        return self.norm(same_convolution(x, self.state[f"{name}.weight"], stride, groups), norm)

    def block(self, x: Tensor, name: str, stride: int, expansion: int) -> Tensor:
        y = x
        if expansion > 1:
            y = self.convolve(y, f"{name}._expand_conv", f"{name}._bn0").clamp(0, 6)
        y = self.convolve(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True).clamp(0, 6)
        y = self.convolve(y, f"{name}._project_conv", f"{name}._bn2")
        return y + x if y.shape == x.shape else y

    def maps(self, x: Tensor) -> list[Tensor]:
        x = self.convolve(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
        maps, index = [], 0
        for depth, _, stride, expansion, _ in TABLE:
            for number in range(depth):
                x = self.block(x, f"_blocks.{index}", stride if number == 0 else 1, expansion)
                index += 1
            maps.append(x)
        return [maps[1], maps[2], maps[4], self.convolve(x, "_conv_head", "_bn1").clamp(0, 6)]


def test_the_maps_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("efficientnet-lite0").double().eval()
    assert isinstance(backbone, EfficientNetLite0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)
        x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=generator)
        maps, pooled = backbone(x)
        state = backbone.state_dict()
        plain = Published({theirs: state[name] for name, theirs in published_names(backbone).items()}).maps(x)
    for ours, theirs in zip(maps, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pooled, maps[-1].flatten(2).mean(dim=2), rtol=1e-10, atol=1e-10)


def test_every_tensor_has_a_published_name_of_its_own() -> None:
    backbone = EfficientNetLite0()
    names = published_names(backbone)
    assert names.keys() == backbone.state_dict().keys()
    assert len({*names.values()}) == len(names) == 296 - 2  # the published file has a classifier of two tensors


def test_the_number_of_parameters_is_that_of_the_table() -> None:
    expected, before = 9 * 3 * 32 + 2 * 32, 32
    for depth, kernel, _, expansion, width in TABLE:
        for _ in range(depth):
            inside = expansion * before
            expected += (before * inside + 2 * inside if expansion > 1 else 0) + kernel**2 * inside + 2 * inside
            expected += inside * width + 2 * width
            before = width
    expected += before * 1280 + 2 * 1280
    assert sum(each.numel() for each in EfficientNetLite0().parameters()) == expected == 3_371_024 - 16


@pytest.mark.parametrize(("size", "sides"), [(8, [2, 1, 1, 1]), (33, [8, 4, 2, 1]), (224, [56, 28, 14, 7])])
def test_the_maps_halve_down_to_a_pixel(size: int, sides: list[int]) -> None:
    backbone = EfficientNetLite0().eval()
    with torch.inference_mode():
        maps, pooled = backbone(torch.zeros(1, 3, size, size))
    widths = backbone.level_widths
    assert [tuple(each.shape) for each in maps] == [
        (1, width, side, side) for width, side in zip(widths, sides, strict=True)
    ]
    assert (pooled.shape, widths) == ((1, backbone.width), (24, 40, 112, 1280))
