"""FeCAM's distance, with the base classes held back.

A network that was trained on the base classes answers with them too readily. Taking a constant from their logits is
calibrated stacking: Chao, Changpinyo, Gong, Sha, "An Empirical Study and Analysis of Generalized Zero-Shot Learning for
Object Recognition in the Wild", ECCV 2016. The constant has to differ by a factor of five from one network to another;
as a share of the distance between the base classes' means it does not.
"""

import torch
from torch import Tensor

from m2sd_cli.method.feature_maps import POWER
from m2sd_cli.method.fecam import fecam_head
from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

# It is for tens of base classes: the more there are, the more often one of them wins by chance. With six, new classes
# are hardly held back and lose by it.
SHARE = 0.05  # chosen on base training images alone


def separation(means: Tensor) -> float:
    """Average 1 - cos(m_b, m_c) over pairs of different classes, for means (C, D): 0 to 2, and 0 for one class."""
    classes = len(means)
    unit = on_unit_sphere(means)
    cosines = unit.sum(dim=0).square().sum() - unit.square().sum()  # of all pairs
    return 1 - float(cosines) / (classes * (classes - 1)) if classes > 1 else 0.0


def debiased_head(
    base: Tensor, new: Tensor, covariance: Tensor, scale: float, share: float = SHARE, power: float = POWER
) -> Head:
    """Build the head of FeCAM with S gamma taken from the logits of base classes, gamma = share x separation(base).

    Base classes are told apart as before: gamma only moves the border between old and new.

    Args:
        base: means of the power-transformed features of the base classes, (C, D).
        new: those of the new classes, (N, D).
        covariance: of those features within the base classes, (D, D).
        scale: S.
        share: of the base classes' separation.
        power: of the transformation.
    """
    gamma = torch.zeros(len(base) + len(new))
    gamma[: len(base)] = share * separation(base)
    return fecam_head(torch.cat([base, new]), covariance, scale, power).less(scale * gamma)


def build(known: KnownClasses, _similarity: str, scale: float) -> Head:
    """Build the head of all classes known, whatever the similarity of the trained W."""
    statistics, new = known.statistics, known.power_means()
    power = float(statistics.power)
    return debiased_head(statistics.power_means, new, statistics.power_covariance, scale, power=power)
