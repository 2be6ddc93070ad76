"""The factors of the terms of L; they are the defaults of options, so that this module imports no torch."""

from dataclasses import dataclass
from typing import Final

# The usual factor of attention transfer by the reduction of its squares: `sum` is the paper's formula, `mean` FRSKD's.
ATTENTION: Final = {"mean": 100.0, "sum": 1.0}


@dataclass(frozen=True)
class LossWeights:
    """The factor of each term of L. A term of factor 0 is not computed at all."""

    ce: float = 1.0  # L_ce^v
    kl: float = 1.0  # L_KL^v, of two branches
    kd: float = 1.0  # KL(p_hat, f(x)), of L_AT
    attention: float = ATTENTION["mean"]  # sum_i || at(T_i) - at(phi_i(x)) ||^2, of L_AT
    teacher: float = 1.0  # cross-entropy of W', which alone teaches FE: kd and attention stop there
    clean: float = 0.0  # cross-entropy of the unmixed images, which the paper does not have

    @property
    def need_enhancement(self) -> bool:
        """True if a term compares with feature enhancement."""
        return any((self.kd, self.attention, self.teacher))

    @property
    def need_virtual(self) -> bool:
        """True if a term looks at the virtual images."""
        return self.need_enhancement or any((self.ce, self.kl))
