"""ResNet-12, the backbone of few-shot learning: four residual blocks of three convolutions (Lee et al., CVPR 2019).

NC-FSCIL, OrCo and ConCM use this network on CIFAR-100, with widths of 64-160-320-640 and without DropBlock.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.numerics import global_average_pool

WIDTHS = (64, 160, 320, 640)
SLOPE = 0.1  # of the leaky ReLU below 0


class Block(nn.Module):
    """pool(lrelu(bn(conv(lrelu(bn(conv(lrelu(bn(conv(x)))))))) + bn(conv1x1(x)))), where conv has 3x3 kernels."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H // 2, W // 2); a map of one row or column keeps its size."""
        y = F.leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        y = F.leaky_relu(self.bn2(self.conv2(y)), SLOPE)
        y = F.leaky_relu(self.bn3(self.conv3(y)) + self.downsample(x), SLOPE)
        return F.max_pool2d(y, 2) if min(y.shape[-2:]) > 1 else y


class ResNet12(Backbone):
    """Four blocks, whose outputs are phi_1..phi_4."""

    blocks = ("layer1", "layer2", "layer3", "layer4")
    level_widths = WIDTHS
    width = WIDTHS[-1]
    folds = True

    def __init__(self) -> None:
        super().__init__()
        for name, in_channels, width in zip(self.blocks, (3, *WIDTHS), WIDTHS, strict=False):
            self.add_module(name, nn.Sequential(Block(in_channels, width)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Features:
        """Map normalised images (B, 3, H, W) to phi_1..phi_4 and the pooled feature (B, 640)."""
        maps = []
        for name in self.blocks:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return Features(tuple(maps), global_average_pool(x))
