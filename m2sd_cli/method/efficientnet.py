"""EfficientNet-Lite0, a small network for images of any kind (Tan & Le, ICML 2019; Lite: Google, 2020).

Lite0 is EfficientNet-B0 with ReLU6 in place of swish and without squeeze-and-excitation.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.backbone import Backbone, Features, OtherNames
from m2sd_cli.method.numerics import global_average_pool


class Stage(NamedTuple):
    """A row of the network's table: blocks of one width, of which the first one has the stride."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM, HEAD = 32, 1280  # channels
LEVELS = (  # the stages before each of the four maps
    (Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24)),
    (Stage(2, 5, 2, 6, 40),),
    (Stage(3, 3, 2, 6, 80), Stage(3, 5, 1, 6, 112)),
    (Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320)),
)
HEAD_INDEX = sum(stage.depth for stage in LEVELS[-1])  # of the last convolution in the last level

# Both networks of timm name their tensors alike, so that a file does not tell which it is of.
TIMM_REMARK = (
    "weights named as timm names them: taken for tf_efficientnet_lite0, whose network is this one; efficientnet_lite0 "
    "was trained with another padding, and is exact as --backbone timm:efficientnet_lite0 only"
)


class Convolution(nn.Module):
    """bn(conv(x)), with ReLU6 or without.

    The padding is TensorFlow's "same" of an even map, with which the published weights were trained: with a stride of 2
    there is one row and one column less before the map than after it.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel - stride) // 2
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
        self.relu = relu
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H // stride, W // stride); a side of one pixel stays one."""
        if self.stride == 2:
            height, width = (2 if side == 1 else 1 for side in x.shape[-2:])
            x = F.pad(x, (0, width, 0, height))
        y: Tensor = self.bn(self.conv(x))
        return F.relu6(y) if self.relu else y


class InvertedResidual(nn.Module):
    """x + project(depthwise(expand(x))); without x where the shape changes, without expand at an expansion of 1."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inside = stage.expansion * in_channels
        self.expand = None if stage.expansion == 1 else Convolution(in_channels, inside)
        self.depthwise = Convolution(inside, inside, stage.kernel, stride, groups=inside)
        self.project = Convolution(inside, stage.width, relu=False)
        self.is_residual = stride == 1 and in_channels == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H // stride, W // stride)."""
        y: Tensor = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + y if self.is_residual else y


class EfficientNetLite0(Backbone):
    """Four levels, at a quarter of the resolution to a thirty-second; the last ends in the 1x1 convolution to 1,280."""

    blocks = ("level1", "level2", "level3", "level4")
    level_widths = (*(stages[-1].width for stages in LEVELS[:-1]), HEAD)
    width = HEAD
    folds = True

    @property
    def other_names(self) -> list[OtherNames]:
        """The names of the published PyTorch weights, and those of timm."""
        return [OtherNames(published_names(self)), OtherNames(timm_names(self), TIMM_REMARK)]

    def __init__(self) -> None:
        super().__init__()
        channels = STEM
        for name, stages in zip(self.blocks, LEVELS, strict=True):
            level = nn.Sequential(*([Convolution(3, STEM, 3, stride=2)] if name == "level1" else []))
            for stage in stages:
                for index in range(stage.depth):
                    level.append(InvertedResidual(channels, stage, stage.stride if index == 0 else 1))
                    channels = stage.width
            if name == "level4":
                level.append(Convolution(channels, HEAD))
            self.add_module(name, level)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Features:
        """Map normalised images (B, 3, H, W) to phi_1..phi_4 and the pooled feature (B, 1280)."""
        maps = []
        for name in self.blocks:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return Features(tuple(maps), global_average_pool(x))


def published_names(backbone: EfficientNetLite0) -> dict[str, str]:
    """Name every tensor of the network as the published PyTorch weights do.

    Returns:
        the published name of each name in the state dict.
    """
    prefixes = {}
    blocks = 0
    for name, module in backbone.named_modules():
        if isinstance(module, InvertedResidual):
            norms = iter(range(3) if module.expand else range(1, 3))
            for part, _ in module.named_children():
                prefixes[f"{name}.{part}"] = (f"_blocks.{blocks}._{part}_conv", f"_blocks.{blocks}._bn{next(norms)}")
            blocks += 1
    prefixes["level1.0"] = ("_conv_stem", "_bn0")
    prefixes[f"level4.{HEAD_INDEX}"] = ("_conv_head", "_bn1")
    return _renamed(backbone, prefixes)


def timm_names(backbone: EfficientNetLite0) -> dict[str, str]:
    """Name every tensor of the network as timm's `tf_efficientnet_lite0` does.

    Returns:
        timm's name of each name in the state dict.
    """
    prefixes = {"level1.0": ("conv_stem", "bn1"), f"level4.{HEAD_INDEX}": ("conv_head", "bn2")}
    places = [(stage, index) for stage, each in enumerate(sum(LEVELS, ())) for index in range(each.depth)]
    blocks = [(name, each) for name, each in backbone.named_modules() if isinstance(each, InvertedResidual)]
    for (stage, index), (name, block) in zip(places, blocks, strict=True):
        parts = (
            {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
            if block.expand
            else {"depthwise": "conv_dw", "project": "conv_pw"}
        )
        for number, (part, theirs) in enumerate(parts.items(), start=1):
            prefix = f"blocks.{stage}.{index}"
            prefixes[f"{name}.{part}"] = (f"{prefix}.{theirs}", f"{prefix}.bn{number}")
    return _renamed(backbone, prefixes)


def _renamed(backbone: EfficientNetLite0, prefixes: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Name every tensor by the names of the convolution and the norm of each `Convolution`."""
    names = {}
    for name in backbone.state_dict():
        module_name, part, tensor = name.rsplit(".", 2)
        convolution, norm = prefixes[module_name]
        names[name] = f"{convolution if part == 'conv' else norm}.{tensor}"
    return names
