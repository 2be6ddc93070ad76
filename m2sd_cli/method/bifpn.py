"""BiFPN (Tan et al., CVPR 2020), one repeat, in the form that self-distillation uses it (FRSKD, CVPR 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Maps = tuple[Tensor, Tensor, Tensor, Tensor]


class Fusion(nn.Module):
    """Fast normalised fusion: sum_k w_k x_k with w = ReLU(w) / (sum ReLU(w) + 1e-6), all equal at the start."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps of one shape to one map of that shape."""
        weight = F.relu(self.weight)
        weight = weight / (weight.sum() + 1e-6)
        fused = weight[0].to(maps[0].dtype) * maps[0]
        for number, each in enumerate(maps[1:], start=1):
            fused = fused + weight[number].to(each.dtype) * each
        return fused


def projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution and batch norm: a map in the channels of another level."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


def separable(channels: int) -> nn.Sequential:
    """Two depthwise-separable 3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Nearest-neighbour x2, or to whatever size `like` has: neighbouring levels of an odd map are not exact doubles."""
    return x if x.shape[-2:] == like.shape[-2:] else F.interpolate(x, size=like.shape[-2:], mode="nearest")


def downsample_to(x: Tensor, like: Tensor) -> Tensor:
    """3x3 max-pool of stride 2; levels of one resolution, such as the first two of ResNet-20, need none."""
    return x if x.shape[-2:] == like.shape[-2:] else F.max_pool2d(x, 3, stride=2, padding=1)


class BiFPN(nn.Module):
    """Fuses four maps coarse to fine, then fine to coarse; T_i has the resolution of map i and expansion x C_i channels.

    Up:   M_4 = a_4,  M_i = conv(fuse(a_i, up(M_i+1)))              for i = 3, 2, 1
    Down: T_1 = M_1,  T_i = conv(fuse(b_i, M_i, down(T_i-1)))       for i = 2, 3
                      T_4 = conv(fuse(b_4, down(T_3)))
    with a_i and b_i two separate 1x1 laterals of level i.
    """

    def __init__(self, widths: tuple[int, ...], expansion: int = 2) -> None:
        super().__init__()
        self.widths = tuple(expansion * width for width in widths)
        pairs = list(zip(widths, self.widths, strict=True))
        self.lateral_up = nn.ModuleList(projection(width, wide) for width, wide in pairs)
        self.lateral_down = nn.ModuleList(projection(width, wide) for width, wide in pairs[1:])
        steps = list(zip(self.widths, self.widths[1:], strict=False))
        self.up = nn.ModuleList(projection(coarse, fine) for fine, coarse in steps)
        self.down = nn.ModuleList(projection(fine, coarse) for fine, coarse in steps)
        self.fuse_up = nn.ModuleList(Fusion(2) for _ in range(3))
        self.fuse_down = nn.ModuleList(Fusion(inputs) for inputs in (3, 3, 2))
        self.conv_up = nn.ModuleList(separable(wide) for wide in self.widths[:-1])
        self.conv_down = nn.ModuleList(separable(wide) for wide in self.widths[1:])

    def forward(self, maps: Maps) -> Maps:
        """Four maps (B, C_i, H_i, W_i), finest first, to T_1 .. T_4, each (B, expansion * C_i, H_i, W_i)."""
        up = [lateral(each) for lateral, each in zip(self.lateral_up, maps, strict=True)]
        for level in (2, 1, 0):
            # Projecting before upsampling is the same map for a quarter of the work.
            coarser = upsample_to(self.up[level](up[level + 1]), up[level])
            up[level] = self.conv_up[level](self.fuse_up[level](up[level], coarser))
        fused = [up[0]]
        for level in (1, 2, 3):
            lateral = self.lateral_down[level - 1](maps[level])
            finer = self.down[level - 1](downsample_to(fused[-1], lateral))
            inputs = (lateral, up[level], finer) if level < 3 else (lateral, finer)
            fused.append(self.conv_down[level - 1](self.fuse_down[level - 1](*inputs)))
        t_1, t_2, t_3, t_4 = fused
        return t_1, t_2, t_3, t_4
