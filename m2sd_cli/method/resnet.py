"""Residual networks (He et al., CVPR 2016), of torchvision's blocks and with torchvision's names."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.numerics import global_average_pool


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), with a 1x1 convolution as shortcut where the shape changes."""

    expansion = 1  # output channels for each of `width`

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + identity)


class Bottleneck(nn.Module):
    """relu(bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))) + shortcut(x)); the 3x3 convolution has the stride."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, 4 width, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + identity)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Make the 1x1 convolution beside a block that changes the shape; None beside one that does not."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


@dataclass(frozen=True)
class Architecture:
    """The shape of a residual network."""

    imagenet_stem: bool  # 7x7 stride 2 and max-pool, or 3x3 stride 1
    widths: tuple[int, ...]  # of the blocks of each layer; the second and later layers halve the resolution
    depths: tuple[int, ...]  # blocks in each layer
    block: type[BasicBlock | Bottleneck] = BasicBlock


class ResNet(Backbone):
    """A residual network without its classifier.

    The parameters carry torchvision's names, so that a state dict of `torchvision.models.resnet18` loads into
    `resnet18` as it is. Torchvision's own network does not return phi_1..phi_4, has no size for CIFAR, and takes every
    `predict` seconds to import.
    """

    folds = True

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        block, widths = architecture.block, architecture.widths
        self.imagenet_stem = architecture.imagenet_stem
        self.layers = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        self.blocks = ("stem", *self.layers)
        channels = tuple(block.expansion * width for width in widths)
        # Three layers, as a network for CIFAR has, leave one of four levels open: phi_1 is the output of the stem then.
        self.stem_is_a_level = len(widths) == 3
        self.level_widths = (widths[0], *channels) if self.stem_is_a_level else channels
        self.width = channels[-1]
        if self.imagenet_stem:
            self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        in_channels = widths[0]
        for name, width, depth in zip(self.layers, widths, architecture.depths, strict=True):
            layer = nn.Sequential()
            for index in range(depth):
                layer.append(block(in_channels, width, stride=2 if name != "layer1" and index == 0 else 1))
                in_channels = block.expansion * width
            self.add_module(name, layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the input of the first layer: at a quarter of their resolution, or at the same."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.imagenet_stem else x

    def forward(self, x: Tensor) -> Features:
        """Map normalised images (B, 3, H, W) to phi_1..phi_4 and the pooled feature (B, D)."""
        x = self.stem(x)
        maps = [x] if self.stem_is_a_level else []
        for name in self.layers:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return Features(tuple(maps), global_average_pool(x))


def resnet20() -> ResNet:
    """Build ResNet-20 for CIFAR: three layers of three basic blocks.

    Its shortcuts are 1x1 convolutions where the shape changes, as in CEC (Zhang et al., CVPR 2021), from whose code the
    field has this network. He et al. pad with zeros there.
    """
    return ResNet(Architecture(imagenet_stem=False, widths=(16, 32, 64), depths=(3, 3, 3)))


def resnet18_cifar() -> ResNet:
    """Build ResNet-18 with the stem of a network for CIFAR, a 3x3 convolution of stride 1."""
    return ResNet(Architecture(imagenet_stem=False, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)))


def resnet18() -> ResNet:
    """Build torchvision's `resnet18`."""
    return ResNet(Architecture(imagenet_stem=True, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)))


def resnet34() -> ResNet:
    """Build torchvision's `resnet34`."""
    return ResNet(Architecture(imagenet_stem=True, widths=(64, 128, 256, 512), depths=(3, 4, 6, 3)))


def resnet50() -> ResNet:
    """Build torchvision's `resnet50`."""
    shape = Architecture(imagenet_stem=True, widths=(64, 128, 256, 512), depths=(3, 4, 6, 3), block=Bottleneck)
    return ResNet(shape)
