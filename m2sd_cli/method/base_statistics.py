"""The statistics of the base session for stage 3's classifiers, from one pass over its images."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.method.feature_maps import POWER, power_transform, random_features, random_projection
from m2sd_cli.method.prototypes import ClassMeans

DIRECTIONS = 64  # R; ResNet-20 has no more features. A class then takes 16 kB
MOST_NUMBERS = 2**25  # 256 MB of the second moments of classes, while they are added up
ROUNDING = 1e-10  # the share of a second moment that float64 may leave where it should cancel


@dataclass(frozen=True)
class BaseStatistics:
    """Statistics of C base classes with features of width D and random features of width M; float32, on the CPU.

    Base sessions of version 0.2.0, and those of too many wide classes, have no covariance of each class.
    """

    power: Tensor  # (1,), of the power transform
    power_means: Tensor  # (C, D), of the power-transformed features
    power_covariance: Tensor  # (D, D), of those features within a class, the mean over classes
    projection: Tensor  # P (D, M)
    random_means: Tensor  # (C, M), of h = max(x P / |x|, 0)
    random_gram: Tensor  # (M, M), of h h^T the mean within a class, the mean over classes
    directions: Tensor | None = None  # (D, R), orthonormal, in which the power-transformed features vary most
    class_covariances: Tensor | None = None  # (C, R, R), of those features of each class in these directions

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, without the missing ones."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def of_phi(self, width: int) -> "BaseStatistics":
        """Make those of the first `width` features, without random features and covariances of classes."""
        return BaseStatistics(
            power=self.power,
            power_means=self.power_means[:, :width],
            power_covariance=self.power_covariance[:width, :width],
            projection=self.projection[:width, :0],
            random_means=self.random_means[:, :0],
            random_gram=self.random_gram[:0, :0],
        )


def keeps_class_covariances(classes: int, width: int) -> bool:
    """Tell if the covariance of each class is computed: not where that would take too much memory."""
    return classes * width * width <= MOST_NUMBERS


def widest(covariance: Tensor, most: int = DIRECTIONS) -> Tensor:
    """Return R = min(D, most) orthonormal directions (D, R) in which features of this covariance (D, D) vary most.

    Where D is no more than `most`, the directions are the features themselves. The largest number of a direction is
    positive.
    """
    width = len(covariance)
    if width <= most:
        return torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    vectors = torch.linalg.eigh(covariance).eigenvectors[:, -most:]
    signs = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    found: Tensor = vectors * signs
    return found


class HeldOut(NamedTuple):
    """Features and labels of N base images that were not trained on."""

    features: Tensor  # (N, D)
    labels: Tensor  # (N,) in [0, C)


class BaseSums:
    """Sums over features, batch by batch in float64, so that no more than one batch of features is ever held.

    Args:
        counts: images of each base class, (C,), all at least 1. Every class counts the same, so that a class of many
            images does not drown the others.
        width: D.
        device: of the features.
        projection: P (D, M), on any device.
        power: of the power transform.
    """

    def __init__(
        self,
        counts: Tensor,
        width: int,
        device: torch.device | str = "cpu",
        projection: Tensor | None = None,
        power: float = POWER,
    ) -> None:
        self.means = ClassMeans(len(counts), width, device)
        self._projection = (random_projection(width) if projection is None else projection).to(device)
        size = self._projection.shape[1]
        self._exponent = power
        self._power_means = ClassMeans(len(counts), width, device)
        self._random_means = ClassMeans(len(counts), size, device)
        self._share = (1 / (len(counts) * counts.to(torch.float64))).to(device)
        self._power = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._random = torch.zeros(size, size, dtype=torch.float64, device=device)
        classes = len(counts) if keeps_class_covariances(len(counts), width) else 0
        self._by_class = torch.zeros(classes, width, width, dtype=torch.float64, device=device)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B, D), un-normalised, of images with labels (B,) in [0, C)."""
        self.means.add(features, labels)
        share = self._share[labels][:, None]
        for x, means, moment in (
            (power_transform(features, self._exponent), self._power_means, self._power),
            (random_features(features, self._projection), self._random_means, self._random),
        ):
            means.add(x, labels)
            x = x.to(torch.float64)
            moment += (share * x).T @ x
        if len(self._by_class):
            x = power_transform(features, self._exponent).to(torch.float64)
            for label in set(labels.tolist()):
                own = x[labels == label]
                self._by_class[label] += own.T @ own

    @property
    def totals(self) -> list[Tensor]:
        """The sums so far; those of other processes may be added to them."""
        means = (self.means, self._power_means, self._random_means)
        return [*(total for each in means for total in each.totals), self._power, self._random, self._by_class]

    def statistics(self) -> BaseStatistics:
        """Compute the statistics of the features added so far.

        Raises:
            ValueError: a class has no image.
        """
        power_means = self._power_means.means(torch.float64)
        # The mean over classes of E[x x^T] - m m^T. A variance no larger than the difference's rounding is none, as
        # where every class has one image; a correlation would make numbers of any size of it.
        covariance = self._power - power_means.T @ power_means / len(power_means)
        varies = covariance.diagonal() > ROUNDING * self._power.diagonal()
        covariance = torch.where(varies[:, None] & varies, covariance, 0)
        directions, by_class = None, None
        if len(self._by_class):
            directions = widest(covariance)
            _, counts = self._power_means.totals
            seen = power_means @ directions
            by_class = directions.T @ self._by_class @ directions / counts[:, None, None]
            by_class = by_class - seen[:, :, None] * seen[:, None, :]
            directions, by_class = directions.float().cpu().contiguous(), by_class.float().cpu()
        return BaseStatistics(
            power=torch.tensor([self._exponent], dtype=torch.float32),
            power_means=power_means.float().cpu(),
            power_covariance=covariance.float().cpu(),
            projection=self._projection.float().cpu(),
            random_means=self._random_means.means().cpu(),
            random_gram=self._random.float().cpu(),
            directions=directions,
            class_covariances=by_class,
        )
