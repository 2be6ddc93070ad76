"""TEEN: the means of new classes, moved towards those of the base classes that they resemble.

Wang, Zhou, Zhang, Zhan, Ye, "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration", NeurIPS
2023. A mean of few shots lies off the class's own, and new images go to base classes; which base classes a new one
resembles, however, the frozen network knows well.
"""

import torch
from torch import Tensor

from m2sd_cli.method.heads import Head, on_unit_sphere

# On simulated sessions (see fecam.py) these give AVG 63.8 and HM 43.1. An alpha of 0.7 or 0.9 gains 0.2 of AVG and
# loses 1.2 or 3.4 of HM, one of 0.3 loses 0.3 of AVG; a tau of 8 loses in both, one of 32 changes less than 0.5.
ALPHA = 0.5  # share of a class's own mean; the paper's
TAU = 16.0  # inverse temperature of the softmax over base classes; the paper's


def calibrated_means(new: Tensor, base: Tensor, alpha: float = ALPHA, tau: float = TAU) -> Tensor:
    """w_n' = alpha w_n + (1 - alpha) dw_n with dw_n = sum_b softmax_b(tau cos(w_n, w_b)) w_b, all of unit length.

    Lengths say nothing to a cosine classifier, so that w_n, w_b and dw_n are brought to unit length before they are
    added, as the authors' published code does.

    Args:
        new: w_n, means of new classes (N, D).
        base: w_b, means of base classes (C, D).
        alpha: share of the own mean, 0 to 1.
        tau: how sharply the most similar base classes are preferred.

    Returns:
        (N, D) in float64.
    """
    new, base = on_unit_sphere(new), on_unit_sphere(base)
    nearby = on_unit_sphere((tau * new @ base.T).softmax(dim=1) @ base)
    return alpha * new + (1 - alpha) * nearby


def teen_head(base: Tensor, new: Tensor, scale: float, alpha: float = ALPHA, tau: float = TAU) -> Head:
    """Cosine to the base means (C, D) and to the calibrated means of the new classes (N, D)."""
    rows = torch.cat([on_unit_sphere(base), calibrated_means(new, base, alpha, tau)])
    return Head(rows.float(), "cosine", scale)
