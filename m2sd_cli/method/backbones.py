"""phi: residual networks that return their four feature maps beside the pooled feature."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.numerics import at_least_float32, to_nhwc
from m2sd_cli.method.recomputation import apply


class Features(NamedTuple):
    """What a backbone makes of a batch of B images."""

    maps: tuple[Tensor, Tensor, Tensor, Tensor]  # phi_1 .. phi_4, each (B, C_i, H_i, W_i)
    pooled: Tensor  # phi(x), (B, C_4): the mean of phi_4 over its positions


@dataclass(frozen=True)
class Architecture:
    """The shape of a residual network of basic blocks (He et al., CVPR 2016)."""

    imagenet_stem: bool  # 7x7 stride 2 and max-pool, or 3x3 stride 1
    widths: tuple[int, ...]  # channels of each stage; the second and later ones halve the resolution
    blocks: tuple[int, ...]  # basic blocks in each stage

    @property
    def stem_is_a_level(self) -> bool:
        """Whether phi_1 is the stem's output: the three stages of a CIFAR network leave one of four levels open."""
        return len(self.widths) == 3

    @property
    def level_widths(self) -> tuple[int, ...]:
        """C_1 .. C_4."""
        return (self.widths[0], *self.widths) if self.stem_is_a_level else self.widths


LONGEST_NAME = 80  # characters of a tensor that a message names

ARCHITECTURES = {
    "resnet20": Architecture(imagenet_stem=False, widths=(16, 32, 64), blocks=(3, 3, 3)),
    "resnet18-cifar": Architecture(imagenet_stem=False, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
    "resnet18": Architecture(imagenet_stem=True, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
}


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), with a 1x1 convolution as shortcut where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class Backbone(nn.Module):
    """A residual network without its classifier; any input size.

    The parameters carry torchvision's names, so that a state dict of `torchvision.models.resnet18` loads into
    `resnet18` as it is. The network is not torchvision's own because that returns neither phi_1..phi_4 nor a
    CIFAR-sized network, and because its import would cost every `predict` seconds.

    Attributes:
        recompute: hold no large map of its inside for the backward pass but make it again there, see
            `recomputation.apply`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.recompute = False
        widths = architecture.widths
        if architecture.imagenet_stem:
            self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        in_channels = widths[0]
        for number, (width, blocks) in enumerate(zip(widths, architecture.blocks, strict=True), start=1):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(BasicBlock(in_channels, width, stride=2 if number > 1 and block == 0 else 1))
                in_channels = width
            self.add_module(f"layer{number}", stage)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def width(self) -> int:
        """D, the length of the pooled feature."""
        return self.architecture.widths[-1]

    def forward(self, x: Tensor) -> Features:
        """Images (B, 3, H, W), normalised, to phi_1..phi_4 and the pooled feature (B, D)."""
        x = apply(self._stem, x, self.recompute, self)
        maps = [x] if self.architecture.stem_is_a_level else []
        for number in range(1, len(self.architecture.widths) + 1):
            x = apply(self.get_submodule(f"layer{number}"), x, self.recompute, self)
            maps.append(x)
        phi_1, phi_2, phi_3, phi_4 = maps
        return Features((phi_1, phi_2, phi_3, phi_4), at_least_float32(to_nhwc(phi_4)).mean(dim=(1, 2)))

    def _stem(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.architecture.imagenet_stem else x


def build_backbone(name: str) -> Backbone:
    """A freshly initialised backbone of ARCHITECTURES.

    Raises:
        KeyError: the name is not in ARCHITECTURES.
    """
    return Backbone(ARCHITECTURES[name])


def load_initial_weights(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Copy a state dict with torchvision's names into the backbone; a classifier `fc.*` in it is left out.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or kind, or holds a number that is not finite; the
            message names the first few.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    own = backbone.state_dict()
    wrong = sorted(
        [f"{name} is missing" for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked")]
        + [f"{name[:LONGEST_NAME]} is unknown" for name in state.keys() - own.keys()]
        + [f"{name} {wrong}" for name in own.keys() & state.keys() if (wrong := _misfit(state[name], own[name]))]
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError("; ".join(wrong[:3]) + more)
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _misfit(tensor: Tensor, own: Tensor) -> str | None:
    """Why a tensor, which may come from anywhere, cannot take the place of another."""
    if tensor.shape != own.shape:
        return f"has shape {tuple(tensor.shape)}, not {tuple(own.shape)}"
    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta or tensor.is_complex())
    if not plain or tensor.is_floating_point() != own.is_floating_point():
        return "is not made of plain numbers"
    return None if bool(tensor.to(own.dtype).isfinite().all()) else "holds a number that is not finite"
