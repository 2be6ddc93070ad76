"""FeCAM's distance with a covariance for each class, and the margin of `debiased`.

A base class has images enough to tell how its features vary. Its covariance is moved towards the one that all classes
share, as in regularised discriminant analysis: Friedman, JASA 1989. A new class has too few images for a covariance of
its own and borrows those of the base classes that it resembles: Goswami, Twardowski, van de Weijer, "Calibrating
Higher-Order Statistics for Few-Shot Class-Incremental Learning with Pre-trained Vision Transformers", CVPR workshops
2024.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from m2sd_cli.method import fecam
from m2sd_cli.method.base_statistics import BaseStatistics
from m2sd_cli.method.debiased import held_back, margin_of
from m2sd_cli.method.feature_maps import QuadraticFeatures
from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

PRIOR = 200  # images that the shared covariance counts as, beside a class's own
DIAGONAL = 1.0  # gamma; fecam.py's
TAU = 64.0  # inverse temperature of the similarity to base classes: a new class borrows from a few


def shapes(statistics: BaseStatistics, images: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compare the covariance S_c of each base class with S, their mean.

    W W^T is the precision of fecam.py. The columns of Q are the eigenvectors of W^T S W, with the eigenvalues v, within
    the directions that are stored. N_c = I + a_c E^-1/2 Q^T W^T (S_c - S) W Q E^-1/2 with E = diag(v + gamma mean(v))
    is the identity for a class like all others. a_c = n_c / (n_c + PRIOR) for a class of n_c images.

    Returns:
        T = W Q (D, R), and N (C, R, R), in float64.

    Raises:
        ValueError: the statistics are of no features, or have no covariance of each class.
    """
    directions, covariances = statistics.directions, statistics.class_covariances
    if directions is None or covariances is None:
        raise ValueError("there is no covariance of each class")
    shared, directions, covariances = (each.double() for each in (statistics.power_covariance, directions, covariances))
    whitening = fecam.whitening(shared)
    spread = whitening.T @ directions
    basis = torch.linalg.qr(spread).Q
    seen = whitening @ basis
    values, vectors = torch.linalg.eigh(seen.T @ shared @ seen)
    basis = basis @ vectors
    values = values.clamp_min(0)
    weights = values + DIAGONAL * values.mean()
    inverse = torch.where(weights > 0, weights.rsqrt(), 0)
    spread = inverse[:, None] * (basis.T @ spread)
    identity = torch.eye(len(values), dtype=torch.float64)
    counts = torch.tensor(images, dtype=torch.float64)[:, None, None]
    shares = counts / (counts + PRIOR)
    return whitening @ basis, identity + shares * (spread @ (covariances - covariances.mean(dim=0)) @ spread.T)


def borrowed(own: Tensor, means: Tensor, new: Tensor) -> Tensor:
    """Average the matrices of the base classes for each new class n, weighted by softmax_b(tau cos(m_n, m_b)).

    Args:
        own: the matrix of each base class, (C, R, R).
        means: m_b of the base classes, (C, D).
        new: m_n of the new classes, (N, D).

    Returns:
        (N, R, R).
    """
    weights = (TAU * on_unit_sphere(new) @ on_unit_sphere(means).T).softmax(dim=1)
    return torch.einsum("nb,bij->nij", weights, own)


def build(known: KnownClasses, similarity: str, scale: float) -> Head:
    """Build the head of all known classes, whatever the similarity of the trained W.

    The logit is that of fecam.py plus S (q - q_c)^T K_c (q - q_c), which is linear in u and the products q_i q_j. Here
    q = T^T u, q_c = T^T m_c and K_c = (I - tr(N_c) / R N_c^-1) / 2.

    Raises:
        ValueError: see `shapes`.
    """
    statistics = known.statistics
    plain = fecam.build(known, similarity, scale)
    directions, own = shapes(statistics, known.covariance_images or known.images)
    means = torch.cat([statistics.power_means, known.power_means()])
    related = torch.cat([own, borrowed(own, statistics.power_means, means[len(known.base) :])])
    size = related.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    lower, failed = torch.linalg.cholesky_ex(related)
    if failed.any():
        raise ValueError("not the covariances of any features")
    identity = torch.eye(related.shape[1], dtype=torch.float64)
    kernels = (identity - size * torch.cholesky_inverse(lower)) / 2
    q = on_unit_sphere(means) @ directions
    pulled = torch.einsum("cij,cj->ci", kernels, q)
    features = QuadraticFeatures(float(statistics.power), directions.float())
    products = kernels[:, features.first, features.second] * torch.where(features.first == features.second, 1, 2)
    assert plain.bias is not None
    head = Head(
        torch.cat([plain.rows - scale * 2 * pulled @ directions.T, scale * products], dim=1).float(),
        "linear",
        bias=(plain.bias + scale * (pulled * q).sum(dim=1)).float(),
        features=features,
    )
    return held_back(head, len(known.base), margin_of(head, known, scale))
