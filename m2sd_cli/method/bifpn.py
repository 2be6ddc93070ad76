"""BiFPN (Tan et al., CVPR 2020), one repeat, on all levels of a network, as in FRSKD (Ji et al., CVPR 2021).

Two things differ from FRSKD's code. Its laterals and resamplers are convolution, batch norm and ReLU; here they are a
convolution with bias. Its max-pooling pads below and to the right, as far as is needed; here it pads all sides by one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.backbone import Maps


class Fusion(nn.Module):
    """The weights of fast normalised fusion, w = ReLU(w) / (sum ReLU(w) + 1e-6), all equal at the start."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))

    def forward(self) -> tuple[Tensor, ...]:
        """Return one scalar an input."""
        weight = F.relu(self.weight)
        return (weight / (weight.sum() + 1e-6)).unbind()


def weighted(conv: nn.Module, x: Tensor, factor: Tensor) -> Tensor:
    """Compute factor * conv(x) of a 1x1 convolution with bias.

    The factor is put on the kernel: on the map it would cost two more passes over it, forward and back.
    """
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return F.conv2d(x, conv.weight * factor, conv.bias * factor)


def separable(channels: int) -> nn.Sequential:
    """Make two depthwise-separable 3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Repeat the nearest neighbour up to the size of `like`, which is no exact double where a level is odd."""
    return x if x.shape[-2:] == like.shape[-2:] else F.interpolate(x, size=like.shape[-2:], mode="nearest")


def downsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Halve by 3x3 max-pools of stride 2 down to the size of `like`; maps of one resolution need none.

    Where a backbone rounds half of an odd size down, the last row or column is left out. A map may be more than a pixel
    larger after the pools, since stages of some networks have other strides. It is thinned to the nearest positions.
    """
    height, width = like.shape[-2:]
    lower, narrower = x.shape[-2:]  # of a backbone that rounds every half down
    while (lower > height or narrower > width) and (
        min((x.shape[-2] + 1) // 2 - height, (x.shape[-1] + 1) // 2 - width) >= 0
    ):
        x, lower, narrower = F.max_pool2d(x, 3, stride=2, padding=1), lower // 2, narrower // 2
    if max(x.shape[-2] - height, x.shape[-1] - width) > 1:
        return F.interpolate(x, size=(height, width), mode="nearest")
    return x[..., :height, :width]


class BiFPN(nn.Module):
    """A pyramid that fuses four maps coarse to fine, then fine to coarse.

    T_i has the resolution of map i and expansion x C_i channels.

    Up:   M_4 = a_4,  M_i = conv(w_1 a_i + w_2 up(M_i+1))                  for i = 3, 2, 1
    Down: T_1 = M_1,  T_i = conv(w_1 b_i + w_2 M_i + w_3 down(T_i-1))      for i = 2, 3
                      T_4 = conv(w_1 b_4 + w_2 down(T_3))

    with a_i and b_i two separate 1x1 laterals of level i, and w the fusion weights of that sum.
    """

    def __init__(self, widths: tuple[int, ...], expansion: int = 1) -> None:
        super().__init__()
        self.widths = tuple(expansion * width for width in widths)
        pairs = list(zip(widths, self.widths, strict=True))
        self.lateral_up = nn.ModuleList(nn.Conv2d(width, wide, 1) for width, wide in pairs)
        self.lateral_down = nn.ModuleList(nn.Conv2d(width, wide, 1) for width, wide in pairs[1:])
        steps = list(zip(self.widths, self.widths[1:], strict=False))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 1) for fine, coarse in steps)
        self.fuse_up = nn.ModuleList(Fusion(2) for _ in range(3))
        self.fuse_down = nn.ModuleList(Fusion(inputs) for inputs in (3, 3, 2))
        self.conv_up = nn.ModuleList(separable(wide) for wide in self.widths[:-1])
        self.conv_down = nn.ModuleList(separable(wide) for wide in self.widths[1:])

    def forward(self, maps: Maps) -> Maps:
        """Fuse four maps (B, C_i, H_i, W_i), finest first, into T_1 .. T_4, each (B, expansion * C_i, H_i, W_i)."""
        up = [self.lateral_up[3](maps[3])]  # M_4, before which M_3, M_2 and M_1 are put
        for level in (2, 1, 0):
            lateral_factor, coarser_factor = self.fuse_up[level]()
            lateral = weighted(self.lateral_up[level], maps[level], lateral_factor)
            # A projection before upsampling makes the same map as one after it, with a quarter of the work.
            coarser = upsample_to(weighted(self.up[level], up[0], coarser_factor), lateral)
            up.insert(0, self.conv_up[level](lateral + coarser))
        fused = [up[0]]
        for level in (1, 2, 3):
            lateral_factor, *up_factor, finer_factor = self.fuse_down[level - 1]()
            lateral = weighted(self.lateral_down[level - 1], maps[level], lateral_factor)
            finer = weighted(self.down[level - 1], downsample_to(fused[-1], lateral), finer_factor)
            total = lateral + finer
            if up_factor:
                total = total + up_factor[0].to(total.dtype) * up[level]
            fused.append(self.conv_down[level - 1](total))
        return tuple(fused)
