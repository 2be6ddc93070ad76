"""The losses of stages 1 and 2, functions of logits or maps; all average over the batch, in float32 or better."""

from collections.abc import Container
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.backbone import Maps
from m2sd_cli.method.numerics import at_least_float32, to_nhwc

Reduction = Literal["mean", "sum"]  # over the positions of a map


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(f)_y, the loss of stage 1 (paper section 3.1): logits (B, C) and labels (B,) to a scalar >= 0."""
    return F.cross_entropy(at_least_float32(logits), labels)


def closeness(features: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine over all pairs of images of different classes (CLOSER, Oh et al., ECCV 2024): a scalar in [-1, 1].

    The paper does not have it. Images of one class alone have no such pair, and a mean of 0.

    Args:
        features: phi(x), (B, D).
        labels: (B,) integer classes.
    """
    with torch.autocast(features.device.type, enabled=False):  # a mean over pairs is too fine for half precision
        unit = F.normalize(at_least_float32(features), dim=1)
        pairs = (labels[:, None] != labels[None, :]).to(unit.dtype)
        return (unit @ unit.T * pairs).sum() / pairs.sum().clamp_min(1)


def l_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """L_ce^v = CE(y_I, f(x_I)) + CE(y_II, f(x_II)), paper section 3.2: a scalar >= 0.

    Args:
        logits: of n branches, one branch after the other, (n B, C).
        labels: the soft labels that the branches share, (B, C).
    """
    branches = len(logits) // len(labels)
    # A mean over the samples of all branches, times their number, is the sum of the branches' means.
    return branches * soft_cross_entropy(logits, labels.repeat(branches, 1))


def l_kl(first: Tensor, second: Tensor) -> Tensor:
    """L_KL^v = KL(f(x_I) || f(x_II)) + KL(f(x_II) || f(x_I)), paper section 3.2; gradients flow into both."""
    return kl_divergence(first, second) + kl_divergence(second, first)


def l_at(
    p_hat: Tensor,
    teachers: Maps,
    logits: Tensor,
    students: Maps,
    temperature: float,
    branches: int = 1,
    terms: Container[str] = ("kd", "attention"),
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """L_AT = KL(p_hat, f(x)) + sum_i || at(T_i) - at(phi_i(x)) ||^2, paper section 3.3, summed over the branches.

    Args:
        p_hat: logits (n B, C) of W'; no gradient flows into them.
        teachers: T_i (n B, C'_i, H_i, W_i); no gradient flows into them.
        logits: f(x), (n B, C).
        students: phi_i(x), (n B, C_i, H_i, W_i), of the levels of the teachers.
        temperature: of the divergence.
        branches: n.
        terms: the terms to compute.
        reduction: of the squares of attention transfer.

    Returns:
        `kd` and `attention`, the two terms, each with a weight of its own.
    """
    computed = {}
    if "kd" in terms:
        computed["kd"] = branches * kl_divergence(p_hat.detach(), logits, temperature)
    if "attention" in terms:
        computed["attention"] = branches * attention_transfer(teachers, students, reduction)
    return computed


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """CE(y, f) = -sum_c y_c log softmax(f)_c: logits (B, C) and soft labels (B, C) to a scalar >= 0."""
    return -(labels * F.log_softmax(at_least_float32(logits), dim=1)).sum(dim=1).mean()


def kl_divergence(p_logits: Tensor, q_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(p || q) with p = softmax(p_logits / T), q = softmax(q_logits / T): (B, C) each, a scalar >= 0.

    The factor T^2 keeps the gradient's size independent of T (Hinton et al., 2015).
    """
    log_p = F.log_softmax(at_least_float32(p_logits) / temperature, dim=1)
    log_q = F.log_softmax(at_least_float32(q_logits) / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    return divergence * (temperature * temperature)  # which may overflow to infinity, where ** would raise


def attention_map(features: Tensor) -> Tensor:
    """at(.) (Zagoruyko & Komodakis, ICLR 2017): the channel mean of squares, flattened, of L2 norm 1 a sample.

    (B, C, H, W) -> (B, H * W), every entry >= 0. A map of zeros stays zeros, one of nearly zeros is shorter.
    """
    # One pass over the map in float32: squares and their mean would be two, the first of them in half precision.
    length = torch.linalg.vector_norm(to_nhwc(features), dim=3, dtype=at_least_float32(features[:0]).dtype)
    energy = length * length / features.shape[1]
    return F.normalize(energy.flatten(1), dim=1)


def attention_transfer(teachers: Maps, students: Maps, reduction: Reduction = "mean") -> Tensor:
    """sum_i || at(T_i) - at(phi_i) ||^2 over the levels, a mean over the samples: a scalar >= 0.

    Args:
        teachers: T_i (B, C'_i, H_i, W_i) of the levels that are compared; no gradient flows into them.
        students: phi_i (B, C_i, H_i, W_i) of these levels.
        reduction: of the squares at the positions of a map. `sum` is the formula, within [0, 2] a level, since no
            entry of a unit vector is negative; `mean` is the formula over H_i W_i.
    """
    loss = students[0].new_zeros((), dtype=at_least_float32(students[0]).dtype)
    for teacher, student in zip(teachers, students, strict=True):
        with torch.no_grad():
            target = attention_map(teacher)
        squares = (target - attention_map(student)).square()
        loss = loss + (squares.sum(dim=1) if reduction == "sum" else squares).mean()
    return loss
