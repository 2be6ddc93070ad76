"""Stage 3's head: what turns the frozen network's features into one logit a class, whichever classifier was chosen."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.classifiers import classify


class PlainFeatures(nn.Module):
    """The features as they are."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return features

    def describe(self) -> dict[str, Any]:
        """What a file of the head says of it."""
        return {"kind": "plain"}


def power_transform(features: Tensor, power: float) -> Tensor:
    """Tukey's ladder of powers: max(x, 0)^power, entry by entry, which makes skewed features more like a Gaussian's."""
    return features.clamp_min(0) ** power


class PowerFeatures(nn.Module):
    """max(x, 0)^power, brought to unit length, for a power above 0 and up to 1."""

    def __init__(self, power: float) -> None:
        """Take the power.

        Raises:
            ValueError: another power.
        """
        super().__init__()
        if not 0 < power <= 1:
            raise ValueError("not a power that makes features less skewed, above 0 and up to 1")
        self.power = power

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return F.normalize(power_transform(features, self.power), dim=1)

    def describe(self) -> dict[str, Any]:
        """What a file of the head says of it."""
        return {"kind": "power", "power": self.power}


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
        """What a file of the head says of it."""
        return {"kind": "random", "size": self.projection.shape[1]}


FeatureMap = PlainFeatures | PowerFeatures | RandomFeatures


class Head(nn.Module):
    """logits = classify(map(features), rows) + bias.

    The row and the bias of a class depend on the base session and on the class's own shots, and on no other class: the
    head of an earlier session is the beginning of a later one's, and one pass over test images answers for all of them.

    Args:
        rows: (C, D), or (C, M) where the map widens the features.
        kind: one of CLASSIFIERS, how mapped features meet rows.
        scale: of a cosine head.
        bias: (C,), or None.
        features: the map before it.
    """

    rows: Tensor
    bias: Tensor | None

    def __init__(
        self,
        rows: Tensor,
        kind: str = "cosine",
        scale: float = 1.0,
        bias: Tensor | None = None,
        features: FeatureMap | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.scale = scale
        self.features = features or PlainFeatures()
        self.register_buffer("rows", rows)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        logits = classify(self.features(features), self.rows, self.kind, self.scale)
        return logits if self.bias is None else logits + self.bias

    def first(self, classes: int) -> "Head":
        """The head of the first classes alone."""
        bias = None if self.bias is None else self.bias[:classes]
        return Head(self.rows[:classes], self.kind, self.scale, bias, self.features)

    def less(self, amounts: Tensor) -> "Head":
        """The same head with `amounts` (C,) taken from its logits."""
        bias = -amounts if self.bias is None else self.bias - amounts
        return Head(self.rows, self.kind, self.scale, bias, self.features)

    def describe(self) -> dict[str, Any]:
        """What somebody needs beside its tensors to use it."""
        return {
            "features": self.features.describe(),
            "rows": self.kind,
            "scale": self.scale if self.kind == "cosine" else 1.0,
        }


def on_unit_sphere(vectors: Tensor) -> Tensor:
    """Each row at length 1, in float64, as heads are computed; a zero row stays one."""
    return F.normalize(vectors.to(torch.float64), dim=1)
