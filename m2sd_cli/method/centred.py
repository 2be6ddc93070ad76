"""Cosine of features seen from the middle of the base classes, for networks that were pretrained elsewhere.

The features of such a network lie in one narrow cone, in which all classes look alike from the origin. Whitening by the
covariance within classes is WCCN (Hatch, Kajarekar, Stolcke, Interspeech 2006), from speaker verification.
"""

import torch
from torch import Tensor

from m2sd_cli.method.feature_maps import CentredFeatures
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses

DIAGONAL = 1.0  # gamma; FeCAM's for many shots
SHORTEST = 0.2  # of a row's squared length: the least that is left when the noise of few shots is taken off


def cholesky_factor(covariance: Tensor, diagonal: float) -> Tensor | None:
    """L with L L^T = S + gamma V I, S a covariance (D, D) and V the mean variance in it; in float64.

    Args:
        covariance: S.
        diagonal: gamma.

    Returns:
        (D, D), lower triangular; None without any variance.

    Raises:
        ValueError: `covariance` is of no features: it is not symmetric, or has a negative eigenvalue.
    """
    covariance = covariance.double()
    variance = covariance.diagonal().mean()
    if variance == 0:
        return None
    identity = torch.eye(len(covariance), dtype=torch.float64)
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(covariance + diagonal * variance * identity)
    if failed or not torch.allclose(covariance, covariance.T, rtol=1e-4, atol=float(1e-6 * variance)):
        raise ValueError("not the covariance of any features")
    return lower


def whitening(covariance: Tensor, diagonal: float = DIAGONAL) -> Tensor:
    """W (D, D) with W W^T = (S + gamma V I)^-1, see `cholesky_factor`; the identity without any variance."""
    identity = torch.eye(len(covariance), dtype=torch.float64)
    lower = cholesky_factor(covariance, diagonal)
    if lower is None:
        return identity
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.T


def centred_head(
    means: Tensor, images: Tensor, base: int, covariance: Tensor, scale: float, power: float, diagonal: float = DIAGONAL
) -> Head:
    """S cos(z, z_c), z = (u - c) W and z_c = (m_c - c) W, with the length of z_c rid of the noise of few shots.

    The mean of K images misses the class's true mean by n / K in squared length, n = tr(W^T S W). It is longer than the
    true mean by as much, and would give images of its class too small a cosine. |z_c|^2 - n / K takes the place of
    |z_c|^2.

    Args:
        means: m_c, of the power-transformed features of each class (C, D), base classes first.
        images: K of each class, (C,).
        base: the number of base classes, whose mean is c.
        covariance: of those features within the base classes, (D, D).
        scale: S.
        power: of the transformation.
        diagonal: gamma of `whitening`.

    Raises:
        ValueError: see `cholesky_factor`.
    """
    means = means.double()
    centre, projection = means[:base].mean(dim=0), whitening(covariance, diagonal)
    # W W^T (S + gamma V I) = I gives n without a product of matrices, which takes as long as all the rest.
    variance = covariance.double().diagonal().mean()
    noise = (len(covariance) - diagonal * variance * projection.square().sum()) if variance != 0 else variance
    rows = (means - centre) @ projection
    squared = rows.square().sum(dim=1)
    length = torch.maximum(squared - noise / images, SHORTEST * squared).sqrt()
    rows = scale * rows / torch.where(length > 0, length, 1)[:, None]
    return Head(rows.float(), "linear", features=CentredFeatures(power, centre.float(), projection.float()))


def build(known: KnownClasses, _similarity: str, scale: float) -> Head:
    """Build the head of all known classes, whatever the similarity of the trained W."""
    return known_head(known, scale)


def known_head(known: KnownClasses, scale: float, diagonal: float = DIAGONAL) -> Head:
    """Build the head of all known classes, see `centred_head`."""
    statistics = known.statistics
    return centred_head(
        torch.cat([statistics.power_means, known.power_means()]),
        torch.tensor(known.all_images, dtype=torch.float64),
        len(known.base),
        statistics.power_covariance,
        scale,
        float(statistics.power),
        diagonal,
    )
