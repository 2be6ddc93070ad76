"""FE(x) = FPN(EN(phi(x))) and the temporary classifier W', paper section 3.3: the teacher inside stage 2."""

from typing import NamedTuple

from torch import Tensor, nn

from m2sd_cli.method.attention import CoordinateAttention, SelfAttention
from m2sd_cli.method.bifpn import BiFPN, Maps
from m2sd_cli.method.classifiers import Classifier
from m2sd_cli.method.numerics import at_least_float32, to_nhwc
from m2sd_cli.method.recomputation import apply


class Enhanced(NamedTuple):
    """What feature enhancement makes of four maps."""

    maps: tuple[Tensor, ...]  # T_1 .. T_4, or T_4 alone without a pyramid
    logits: Tensor  # p_hat before softmax, (B, C)


class FeatureEnhancement(nn.Module):
    """Attention, pyramid and temporary classifier. It lives in stage 2 only: no base checkpoint holds any of it.

    Args:
        widths: C_1 .. C_4 of the backbone.
        classes: C, the number of base classes.
        kind, scale: of W', as for `Classifier`.
        expansion: channels of T_i for each channel of phi_i.
        recompute: hold no large map of the inside of EN and of FPN's convolutions for the backward pass but make it
            again there, see `recomputation.apply`.
        attention: without it EN leaves phi as it is, FE(x) = FPN(phi(x)), a row of the paper's ablation.
        pyramid: without it the attended phi_4 is T_4, FE(x) = EN(phi_4), another one. There is no T_1 .. T_3 then:
            p_hat would not depend on them, and nothing would teach what makes them.

    Raises:
        ValueError: `widths` does not name four levels.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        classes: int,
        kind: str = "cosine",
        scale: float = 16.0,
        expansion: int = 1,
        recompute: bool = False,
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
        self.recompute = recompute
        self.attention = nn.ModuleList(levels if pyramid else levels[3:])
        self.pyramid = BiFPN(widths, expansion, recompute) if pyramid else None
        width = expansion * widths[-1] if pyramid else widths[-1]  # of T_4
        self.classifier = Classifier(width, classes, kind, scale)

    def forward(self, maps: Maps) -> Enhanced:
        """phi_1 .. phi_4 to T_1 .. T_4 of the same resolutions, and p_hat = W'(T_4)."""
        used = maps[-len(self.attention) :]
        made = tuple(
            apply(attend, each, self.recompute, attend) for attend, each in zip(self.attention, used, strict=True)
        )
        if self.pyramid is not None:
            phi_1, phi_2, phi_3, phi_4 = made
            made = self.pyramid((phi_1, phi_2, phi_3, phi_4))
        return Enhanced(made, self.classifier(at_least_float32(to_nhwc(made[-1])).mean(dim=(1, 2))))
