"""The maps of stage 3 from features of the frozen network to those that a head compares with its rows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POWER = 0.5  # Tukey's lambda; FeCAM's. A base session keeps the power that its statistics are of
SIZE = 1024  # M; P of 512 features then takes 2 MB, and a Gram matrix 4 MB. A base session keeps its own P
SEED = 0  # of P


class PlainFeatures(nn.Module):
    """The identity, or the first features alone.

    Args:
        width: their number; None for all.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D), or (B, width)."""
        return features if self.width is None else features[:, : self.width]

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of the head."""
        return {"kind": "plain"} if self.width is None else {"kind": "plain", "width": self.width}


def power_transform(features: Tensor, power: float) -> Tensor:
    """Tukey's ladder of powers: max(x, 0)^power, entry by entry, which makes skewed features more like a Gaussian's."""
    return features.clamp_min(0) ** power


class PowerFeatures(nn.Module):
    """max(x, 0)^power, brought to unit length, for a power above 0 and up to 1.

    Raises:
        ValueError: another power.
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        if not 0 < power <= 1:
            raise ValueError("not a power that makes features less skewed, above 0 and up to 1")
        self.power = power

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return F.normalize(power_transform(features, self.power), dim=1)

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of the head."""
        return {"kind": "power", "power": self.power}


def random_projection(width: int, size: int = SIZE, seed: int = SEED) -> Tensor:
    """Draw P (D, M) of standard normal numbers, the same in every call."""
    return torch.randn(width, size, generator=torch.Generator().manual_seed(seed))


def random_features(features: Tensor, projection: Tensor) -> Tensor:
    """max(x P / |x|, 0) of features (B, D) and a projection P (D, M): (B, M)."""
    return F.relu(F.normalize(features, dim=1) @ projection)


class RandomFeatures(nn.Module):
    """max(x P / |x|, 0) for a random projection P (D, M)."""

    projection: Tensor

    def __init__(self, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("projection", projection)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, M)."""
        return random_features(features, self.projection)

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of the head."""
        return {"kind": "random", "size": self.projection.shape[1]}


class CentredFeatures(nn.Module):
    """(max(x, 0)^power - c) W, brought to unit length, for a centre c (D,) and a projection W (D, D)."""

    centre: Tensor
    projection: Tensor

    def __init__(self, power: float, centre: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("centre", centre)
        self.register_buffer("projection", projection)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return F.normalize((power_transform(features, self.power) - self.centre) @ self.projection, dim=1)

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of the head."""
        return {"kind": "centred", "power": self.power}


class QuadraticFeatures(nn.Module):
    """[u, q_i q_j for i <= j] with u of `PowerFeatures` and q = u T, for directions T (D, R)."""

    directions: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, power: float, directions: Tensor) -> None:
        super().__init__()
        self.powers = PowerFeatures(power)
        self.register_buffer("directions", directions)
        # Clones: torch.export.save warns of buffers that are views of one tensor.
        first, second = (each.clone() for each in torch.triu_indices(directions.shape[1], directions.shape[1]))
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D + R (R + 1) / 2)."""
        u = self.powers(features)
        q = u @ self.directions
        return torch.cat([u, q.index_select(1, self.first) * q.index_select(1, self.second)], dim=1)

    def describe(self) -> dict[str, Any]:
        """Describe the map for a file of the head."""
        return {"kind": "quadratic", "power": self.powers.power}


FeatureMap = PlainFeatures | PowerFeatures | RandomFeatures | CentredFeatures | QuadraticFeatures
