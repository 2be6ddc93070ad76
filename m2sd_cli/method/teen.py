"""TEEN: the means of new classes, moved towards those of the base classes that they resemble.

Wang, Zhou, Zhang, Zhan, Ye, "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration", NeurIPS
2023. A mean of few shots lies off the class's own, and new images go to base classes; but the frozen network knows well
which base classes a new one resembles.
"""

import torch
from torch import Tensor

from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

# The share of a class's own mean. The authors' scripts of CUB-200 and miniImageNet have 0.5, that of CIFAR-100 has 0.9.
ALPHA = 0.5
TAU = 16.0  # inverse temperature of the softmax over base classes; the paper's


def calibrated_means(new: Tensor, base: Tensor, alpha: float = ALPHA, tau: float = TAU) -> Tensor:
    """w_n' = alpha w_n + (1 - alpha) dw_n with dw_n = sum_b softmax_b(tau cos(w_n, w_b)) w_b, all of unit length.

    A cosine ignores lengths. w_n, w_b and dw_n are therefore brought to unit length before they are added, as in the
    authors' code.

    Args:
        new: w_n, means of new classes (N, D).
        base: w_b, means of base classes (C, D).
        alpha: share of the own mean, 0 to 1.
        tau: inverse temperature of the softmax; the higher, the more the most similar base classes are preferred.

    Returns:
        (N, D) in float64.
    """
    new, base = on_unit_sphere(new), on_unit_sphere(base)
    nearby = on_unit_sphere((tau * new @ base.T).softmax(dim=1) @ base)
    return alpha * new + (1 - alpha) * nearby


def teen_head(base: Tensor, new: Tensor, scale: float, alpha: float = ALPHA, tau: float = TAU) -> Head:
    """Build the head of cosines to the base means (C, D) and to the calibrated means of the new classes (N, D)."""
    rows = torch.cat([on_unit_sphere(base), calibrated_means(new, base, alpha, tau)])
    return Head(rows.float(), "cosine", scale)


def build(known: KnownClasses, _similarity: str, scale: float) -> Head:
    """Build the head of all known classes; TEEN compares directions, so that the similarity is always the cosine."""
    return teen_head(known.base, known.new, scale)
