"""The losses of stage 2, each as one function of logits or maps; all average over the batch, in float32 or better."""

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.method.numerics import at_least_float32, to_nhwc


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


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """L_KL^v = KL(f(x_I) || f(x_II)) + KL(f(x_II) || f(x_I)), paper section 3.2; gradients flow into both."""
    return kl_divergence(first, second) + kl_divergence(second, first)


def attention_map(features: Tensor) -> Tensor:
    """at(.) (Zagoruyko & Komodakis, ICLR 2017): the channel mean of squares, flattened, of L2 norm 1 a sample.

    (B, C, H, W) -> (B, H * W), every entry >= 0. A map of zeros stays zeros.
    """
    # One pass over the map in float32, where squares and their mean would be two, and one in half precision.
    length = torch.linalg.vector_norm(to_nhwc(features), dim=3, dtype=at_least_float32(features[:0]).dtype)
    energy = length * length / features.shape[1]
    return F.normalize(energy.flatten(1), dim=1)


def attention_transfer(teachers: tuple[Tensor, ...], students: tuple[Tensor, ...]) -> Tensor:
    """sum_i mean |at(T_i) - at(phi_i)|^2 over the levels; the mean runs over positions and samples.

    Args:
        teachers: T_i (B, C'_i, H_i, W_i) of the levels that are compared; no gradient flows into them.
        students: phi_i (B, C_i, H_i, W_i) of these levels.
    """
    loss = students[0].new_zeros((), dtype=at_least_float32(students[0]).dtype)
    for teacher, student in zip(teachers, students, strict=True):
        with torch.no_grad():
            wanted = attention_map(teacher)
        loss = loss + (wanted - attention_map(student)).square().mean()
    return loss
