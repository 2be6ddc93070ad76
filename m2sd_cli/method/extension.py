"""More shots of base classes, whose images are gone: the stored means of a class become those of all its images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from m2sd_cli.method.base_statistics import BaseStatistics
from m2sd_cli.method.feature_maps import power_transform, random_features


def extended_means(means: Tensor, images: Sequence[int], shots: Mapping[int, Tensor]) -> Tensor:
    """m_c' = (n_c m_c + sum_k x_k) / (n_c + K) for the classes with K more vectors x_k; the others stay.

    Args:
        means: (C, D).
        images: n_c, the number of images that each mean is of.
        shots: of some classes, the vectors x_k, (K, D).
    """
    extended = means.clone()
    for label, more in shots.items():
        total = images[label] * means[label].double() + more.double().sum(dim=0)
        extended[label] = (total / (images[label] + len(more))).to(means.dtype)
    return extended


def extended_base(
    means: Tensor, statistics: BaseStatistics, images: Sequence[int], shots: Mapping[int, Tensor]
) -> tuple[Tensor, BaseStatistics, list[int]]:
    """Extend the means of base classes, plain, power-transformed and of random features, and count their images.

    The covariances and the Gram matrix within classes stay those of the base session.

    Args:
        means: (C, D).
        statistics: of the same classes.
        images: of each class.
        shots: of some classes, the features (K, D).
    """
    power, projection = float(statistics.power), statistics.projection
    powers = {label: power_transform(more, power) for label, more in shots.items()}
    randoms = {label: random_features(more, projection) for label, more in shots.items()}
    extended = replace(
        statistics,
        power_means=extended_means(statistics.power_means, images, powers),
        random_means=extended_means(statistics.random_means, images, randoms),
    )
    counts = [count + len(shots.get(label, ())) for label, count in enumerate(images)]
    return extended_means(means, images, shots), extended, counts


def joined_mean(shots: Tensor) -> Tensor:
    """Average the features (K, D) of a class's shots of several sessions, in float64: (D,)."""
    mean: Tensor = shots.double().mean(dim=0).to(torch.float32)
    return mean
