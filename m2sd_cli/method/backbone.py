"""phi: the contract of a network that returns its feature maps beside the pooled feature."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from m2sd_cli.method.folding import folded_copy
from m2sd_cli.method.numerics import global_average_pool
from m2sd_cli.registry import load
from m2sd_cli.tables import BACKBONES

Maps = tuple[Tensor, ...]


class Features(NamedTuple):
    """The features of a batch of B images at every level of a backbone."""

    maps: Maps  # phi_1 .. phi_4, each (B, C_i, H_i, W_i)
    pooled: Tensor  # phi(x), (B, D): the mean of phi_4 over its positions if the backbone `pools_last`


class OtherNames(NamedTuple):
    """The names under which another publisher has the tensors of a backbone."""

    names: dict[str, str]  # by the names in the state dict
    remark: str = ""  # for a person who begins from such a file


class Backbone(nn.Module):
    """A network without its classifier: normalised images (B, 3, H, W) of any size to Features.

    Attributes:
        width: D, the length of the pooled feature.
        level_widths: C_1 .. C_4, the channels of the maps. No map has more rows or columns than the one before it.
        pools_last: phi(x) is the mean of phi_4, so that C_4 is D.
        blocks: the names of attributes, modules or methods, that map one map (B, C, H, W) to the next without any
            randomness. Training may compute them twice to save memory.
        pooled_levels: the number of the last maps whose means `session_feature` has. A run sets it, and no subclass.
        folds: each batch normalisation alone takes the output of the convolution that is registered before it in the
            same module, so that inference may fold it into the convolution. A subclass has to say it anew.
    """

    width: int
    level_widths: tuple[int, ...]
    blocks: tuple[str, ...] = ()
    pools_last = True
    pooled_levels: int = 1
    folds = False

    @property
    def session_width(self) -> int:
        """The length of `session_feature`."""
        return self.width + sum(self.level_widths[4 - self.pooled_levels : 3])

    def session_feature(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to the feature that sessions compare, (B, session_width).

        It is phi(x), after which come the means of earlier maps, from the last to the first. These are less tied to the
        base classes. The paper has phi(x) alone.
        """
        found: Features = self(x)
        earlier = found.maps[4 - self.pooled_levels : 3]
        if not earlier:
            return found.pooled
        return torch.cat([found.pooled, *map(global_average_pool, reversed(earlier))], dim=1)

    def for_inference(self) -> "Backbone":
        """Return a network that computes the same in eval mode, up to rounding, and faster if this one `folds`."""
        return folded_copy(self) if vars(type(self)).get("folds") else self

    @property
    def other_names(self) -> list[OtherNames]:
        """The names under which other publishers have the tensors; none by default."""
        return []

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights that do not fit, where the backbone can; by default they are returned as they are."""
        return state

    def check(self, image_size: int) -> None:
        """Refuse images of a size, in pixels, that the network cannot take; by default it takes any.

        Raises:
            UsageError: the network cannot take them.
        """


def build_backbone(name: str, image_size: int | None = None) -> Backbone:
    """Build a backbone of the table BACKBONES with weights drawn at random.

    Args:
        name: in the table.
        image_size: side of the square that the network sees, in pixels, on which networks of some entries depend.

    Raises:
        UsageError: there is no backbone of that name.
        M2sdError: a plug-in cannot be loaded, fails, or does not keep the contract.
    """
    entry = BACKBONES[name]
    with BACKBONES.blamed(name):
        backbone = load(entry.builder)(image_size) if entry.sized else load(entry.builder)()
        if not isinstance(backbone, Backbone):
            raise BACKBONES.broken(name, f"it builds a {type(backbone).__name__}, and no Backbone")
        if len(backbone.level_widths) != 4 or (backbone.pools_last and backbone.level_widths[3] != backbone.width):
            raise BACKBONES.broken(
                name, f"level_widths {backbone.level_widths} and width {backbone.width}: four levels, the last as wide"
            )
    return backbone


def check_features(backbone: Backbone, name: str, image_size: int) -> None:
    """Refuse a network whose features of an image of noise do not keep the contract.

    Args:
        backbone: the network; it is left as it was.
        name: in the table BACKBONES, for messages.
        image_size: side of the image, in pixels.

    Raises:
        M2sdError: the network fails, or its features are not as `Backbone` and `Features` say; the message has their
            sizes.
    """
    was_training = backbone.training
    # Noise: of a black image a network without biases makes maps of zeros, whose mean is also any other pooling.
    noise = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            features = backbone.eval()(noise)
    except Exception as error:  # a network of another package may raise anything
        reason = str(error).partition("\n")[0]
        raise BACKBONES.broken(name, f"it fails at an image of {image_size} pixels: {reason}") from error
    finally:
        backbone.train(was_training)
    fault = find_fault(features, backbone)
    if fault is not None:
        raise BACKBONES.broken(name, f"of an image of {image_size} pixels {fault}")


def find_fault(features: object, backbone: Backbone) -> str | None:
    """Describe how features differ from those that a backbone promises; None if they do not.

    Args:
        features: of one image, in evaluation.
        backbone: the network.
    """
    if not isinstance(features, Features):
        return f"it makes a {type(features).__name__}, and no Features"
    shapes = [tuple(phi.shape) for phi in features.maps]
    told = ", ".join("x".join(map(str, shape[1:])) for shape in shapes)
    if [shape[1:2] for shape in shapes] != [(width,) for width in backbone.level_widths] or any(
        len(shape) != 4 for shape in shapes
    ):
        widths = ", ".join(map(str, backbone.level_widths))
        return f"its maps are {told}; level_widths promises four of {widths} channels, each (B, C, H, W)"
    for before, after in itertools.pairwise(shapes):
        if after[2] > before[2] or after[3] > before[3]:
            return f"its maps are {told}: each has to be as large as the one before, or smaller"
    pooled = tuple(features.pooled.shape)
    if pooled != (1, backbone.width):
        return f"its pooled feature has shape {pooled}; width promises (1, {backbone.width})"
    if backbone.pools_last and not torch.allclose(features.pooled, features.maps[-1].mean(dim=(2, 3)), atol=1e-4):
        return "its pooled feature is not the mean of the last map; pools_last = False says so"
    return None
