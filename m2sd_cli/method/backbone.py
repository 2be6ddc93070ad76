"""phi: the contract of a network that returns its feature maps beside the pooled feature."""

from typing import NamedTuple

from torch import Tensor, nn

from m2sd_cli.registry import BACKBONES, load

Maps = tuple[Tensor, ...]


class Features(NamedTuple):
    """The features of a batch of B images at every level of a backbone."""

    maps: Maps  # phi_1 .. phi_4, each (B, C_i, H_i, W_i)
    pooled: Tensor  # phi(x), (B, D): the mean of phi_4 over its positions if the backbone `pools_last`


class OtherNames(NamedTuple):
    """The names under which somebody else publishes the tensors of a backbone."""

    names: dict[str, str]  # by the names in the state dict
    remark: str = ""  # for who begins from such a file


class Backbone(nn.Module):
    """A network without its classifier: normalised images (B, 3, H, W) of any size to Features.

    Attributes:
        width: D, the length of the pooled feature.
        level_widths: C_1 .. C_4, the channels of the maps, none of which is larger than the one before.
        pools_last: phi(x) is the mean of phi_4, so that C_4 is D.
        blocks: the names of attributes, modules or methods, that map one map (B, C, H, W) to the next without any
            randomness. Training may compute them twice to save memory.
    """

    width: int
    level_widths: tuple[int, ...]
    blocks: tuple[str, ...] = ()
    pools_last = True

    @property
    def other_names(self) -> list[OtherNames]:
        """The names under which others publish the tensors; none by default."""
        return []

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights that do not fit, where the backbone knows how; they are returned as they are by default."""
        return state

    def check(self, image_size: int) -> None:
        """Refuse images of a size, in pixels, that the network cannot take; by default it takes any."""


def build_backbone(name: str, image_size: int | None = None) -> Backbone:
    """Build a backbone of the table BACKBONES with weights drawn at random.

    Args:
        name: in the table.
        image_size: side of the square that the network sees, in pixels, on which networks of some entries depend.

    Raises:
        UsageError: there is no backbone of that name.
        M2sdError: a plug-in cannot be loaded, or does not keep the contract.
    """
    entry = BACKBONES[name]
    backbone = load(entry.builder)(image_size) if entry.sized else load(entry.builder)()
    if not isinstance(backbone, Backbone):
        raise BACKBONES.broken(name, f"it builds a {type(backbone).__name__}, and no Backbone")
    if len(backbone.level_widths) != 4 or (backbone.pools_last and backbone.level_widths[3] != backbone.width):
        raise BACKBONES.broken(
            name, f"level_widths {backbone.level_widths} and width {backbone.width}: four levels, the last as wide"
        )
    return backbone
