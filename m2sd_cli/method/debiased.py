"""Class means with the base classes held back.

A network that was trained on the base classes answers with them too readily. Taking a constant from their logits is
calibrated stacking: Chao, Changpinyo, Gong, Sha, "An Empirical Study and Analysis of Generalized Zero-Shot Learning for
Object Recognition in the Wild", ECCV 2016.
"""

import torch
from torch import Tensor

from m2sd_cli.method.heads import Head

GAMMA = 0.05  # of a cosine


def debiased_head(base: Tensor, new: Tensor, scale: float, gamma: float = GAMMA) -> Head:
    """S (cos(phi, w_c) - gamma [c is a base class]) for base means (C, D) and new means (N, D).

    Base classes are told apart as before: gamma only moves the border between old and new.
    """
    bias = torch.cat([torch.full((len(base),), -scale * gamma), torch.zeros(len(new))])
    return Head(torch.cat([base, new]), "cosine", scale, bias)
