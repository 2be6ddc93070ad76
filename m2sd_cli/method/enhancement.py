"""FE(x) = FPN(EN(phi(x))) and its temporary class weights W', paper section 3.3: the teacher inside stage 2."""

from typing import NamedTuple

from torch import Tensor, nn

from m2sd_cli.method.attention import CoordinateAttention, SelfAttention
from m2sd_cli.method.backbone import Maps
from m2sd_cli.method.bifpn import BiFPN
from m2sd_cli.method.class_weights import ClassWeights
from m2sd_cli.method.numerics import global_average_pool


class Enhanced(NamedTuple):
    """The teachers of a batch of B images."""

    maps: Maps  # T_1 .. T_4, or T_4 alone without a pyramid
    logits: Tensor  # p_hat before softmax, (B, C)


class FeatureEnhancement(nn.Module):
    """Attention, pyramid and temporary class weights, which live in stage 2 only and are in no checkpoint.

    Args:
        widths: C_1 .. C_4 of the backbone.
        classes: C, the number of base classes.
        similarity, scale: of W', as for `ClassWeights`.
        expansion: channels of T_i for each channel of phi_i.
        attention: False leaves EN out, FE(x) = FPN(phi(x)).
        pyramid: False makes the attended phi_4 T_4, FE(x) = EN(phi_4). There is no T_1 .. T_3 then: p_hat would not
            depend on them, and their modules would never be trained.

    Raises:
        ValueError: `widths` does not name four levels.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        classes: int,
        similarity: str = "cosine",
        scale: float = 16.0,
        expansion: int = 1,
        attention: bool = True,
        pyramid: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 4:
            raise ValueError(f"feature enhancement needs four levels, not {len(widths)}")
        levels: list[nn.Module] = (
            [
                SelfAttention(widths[0]),
                CoordinateAttention(widths[1]),
                CoordinateAttention(widths[2]),
                SelfAttention(widths[3]),
            ]
            if attention
            else [nn.Identity() for _ in widths]
        )
        self.attention = nn.ModuleList(levels if pyramid else levels[3:])
        self.pyramid = BiFPN(widths, expansion) if pyramid else None
        width = expansion * widths[-1] if pyramid else widths[-1]  # of T_4
        self.class_weights = ClassWeights(width, classes, similarity, scale)

    def blocks(self) -> list[nn.Module]:
        """List the modules that map one map to another: EN, and the convolutions of the pyramid."""
        convolutions = [] if self.pyramid is None else [*self.pyramid.conv_up, *self.pyramid.conv_down]
        return [*self.attention, *convolutions]

    def forward(self, maps: Maps) -> Enhanced:
        """Map phi_1 .. phi_4 to T_1 .. T_4 of the same resolutions, and to p_hat = W'(T_4)."""
        used = maps[-len(self.attention) :]
        enhanced: Maps = tuple(attend(phi) for attend, phi in zip(self.attention, used, strict=True))
        if self.pyramid is not None:
            enhanced = self.pyramid(enhanced)
        return Enhanced(enhanced, self.class_weights(global_average_pool(enhanced[-1])))
