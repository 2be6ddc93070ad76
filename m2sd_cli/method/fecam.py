"""A relative of FeCAM: Mahalanobis distance to class means, among power-transformed features.

Goswami, Liu, Twardowski, van de Weijer, "FeCAM: Exploiting the Heterogeneity of Class Distributions in Exemplar-Free
Continual Learning", NeurIPS 2023, with the covariance that all classes share: five shots have none of their own.

Four things differ from the authors' few-shot code. A class mean is the mean of powers, theirs the power of the mean.
The covariance is that within classes, as a correlation; theirs is that of all features, as it is. It is shrunk once,
theirs twice. Session 0 answers by the distance too, theirs by the trained classifier.
"""

import torch
from torch import Tensor

from m2sd_cli.method.feature_maps import POWER, PowerFeatures
from m2sd_cli.method.heads import Head, on_unit_sphere
from m2sd_cli.method.stage3 import KnownClasses

DIAGONAL = 1.0  # gamma_1; the paper's for many shots
OFF_DIAGONAL = 1.0  # gamma_2; the paper's for many shots
FLOAT32 = 1e-6  # the rounding of stored covariances, as a share


def shrunk(covariance: Tensor, diagonal: float = DIAGONAL, off_diagonal: float = OFF_DIAGONAL) -> Tensor:
    """S_s = S + gamma_1 V_1 I + gamma_2 V_2 (1 - I), V_1 the mean variance in S (D, D) and V_2 the mean covariance.

    It has full rank where S has not, as with fewer images than features.
    """
    width = len(covariance)
    identity = torch.eye(width, dtype=covariance.dtype)
    variance = covariance.diagonal().mean()
    between = (covariance.sum() - covariance.diagonal().sum()) / max(width * (width - 1), 1)
    return covariance + diagonal * variance * identity + off_diagonal * between * (1 - identity)


def correlation(covariance: Tensor) -> Tensor:
    """S_ij / sqrt(S_ii S_jj): (D, D). A feature without variance is correlated with nothing but itself."""
    deviation = covariance.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(deviation > 0, 1 / deviation, 0)
    return (covariance * inverse[:, None] * inverse).fill_diagonal_(1)


def whitening(covariance: Tensor, diagonal: float = DIAGONAL, off_diagonal: float = OFF_DIAGONAL) -> Tensor:
    """W (D, E) with W W^T = R^-1, the pseudo-inverse of R, the correlation of the shrunk covariance; in float64.

    Raises:
        ValueError: `covariance` is of no features: it is not symmetric, or has a negative eigenvalue.
    """
    related = correlation(shrunk(covariance.double(), diagonal, off_diagonal))
    eigenvalues, vectors = torch.linalg.eigh(related)
    if not torch.allclose(related, related.T, atol=FLOAT32) or eigenvalues[0] < -FLOAT32 * len(related):
        raise ValueError("not the covariance of any features")
    kept = eigenvalues > FLOAT32 * eigenvalues[-1]
    root: Tensor = vectors[:, kept] * eigenvalues[kept].rsqrt()
    return root


def fecam_head(
    means: Tensor,
    covariance: Tensor,
    scale: float,
    power: float = POWER,
    diagonal: float = DIAGONAL,
    off_diagonal: float = OFF_DIAGONAL,
) -> Head:
    """-S/2 (u - m_c)^T R^-1 (u - m_c), u and m_c of unit length, R the correlation of the shrunk covariance.

    u^T R^-1 u is the same for all classes and left out, which makes the logits linear in u:
    S (u^T R^-1 m_c - m_c^T R^-1 m_c / 2).

    Args:
        means: of the power-transformed features of each class, (C, D).
        covariance: of those features within the base classes, (D, D).
        scale: S.
        power: of the transformation.
        diagonal, off_diagonal: gamma_1 and gamma_2 of `shrunk`.

    Raises:
        ValueError: see `whitening`.
    """
    root = whitening(covariance, diagonal, off_diagonal)
    means = on_unit_sphere(means)
    rows = scale * means @ (root @ root.T)
    bias = -(rows * means).sum(dim=1) / 2
    return Head(rows.float(), "linear", bias=bias.float(), features=PowerFeatures(power))


def build(known: KnownClasses, _similarity: str, scale: float) -> Head:
    """Build the head of all known classes, whatever the similarity of the trained W."""
    statistics = known.statistics
    means = torch.cat([statistics.power_means, known.power_means()])
    return fecam_head(means, statistics.power_covariance, scale, float(statistics.power))
