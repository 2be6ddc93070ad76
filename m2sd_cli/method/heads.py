"""Stage 3's head: the frozen network's features to one logit a class, whichever classifier was chosen."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.class_weights import class_logits
from m2sd_cli.method.feature_maps import FeatureMap, PlainFeatures


class Head(nn.Module):
    """logits = class_logits(map(features), rows) + bias.

    The row and the bias of a class depend on the base session, as it was last extended, and on the class's own shots.
    So the head of an earlier session is the beginning of a later one's, and one pass over test images answers for all.

    Args:
        rows: (C, D), or (C, M) where the map widens the features.
        similarity: one of SIMILARITIES, between mapped features and rows.
        scale: of a cosine head.
        bias: (C,), or None.
        features: the map that features go through first.
    """

    rows: Tensor
    bias: Tensor | None

    def __init__(
        self,
        rows: Tensor,
        similarity: str = "cosine",
        scale: float = 1.0,
        bias: Tensor | None = None,
        features: FeatureMap | None = None,
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.scale = scale
        self.features = features or PlainFeatures()
        self.register_buffer("rows", rows)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, C)."""
        logits = class_logits(self.features(features), self.rows, self.similarity, self.scale)
        return logits if self.bias is None else logits + self.bias

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.rows)

    def first(self, classes: int) -> "Head":
        """Make the head of the first classes alone."""
        bias = None if self.bias is None else self.bias[:classes]
        return Head(self.rows[:classes], self.similarity, self.scale, bias, self.features)

    def select(self, classes: Tensor) -> "Head":
        """Make the head of some classes, by their indices (N,) int64."""
        bias = None if self.bias is None else self.bias[classes]
        return Head(self.rows[classes], self.similarity, self.scale, bias, self.features)

    def less(self, amounts: Tensor) -> "Head":
        """Make the same head with `amounts` (C,) taken from its logits."""
        bias = -amounts if self.bias is None else self.bias - amounts
        return Head(self.rows, self.similarity, self.scale, bias, self.features)

    def describe(self) -> dict[str, Any]:
        """Describe the use of the head's tensors, for a file that holds them."""
        return {
            "features": self.features.describe(),
            "rows": self.similarity,
            "scale": self.scale if self.similarity == "cosine" else 1.0,
        }


class Classifier(Protocol):
    """The contract of a classifier that is no Head: a network from features to logits.

    It is an nn.Module, all of whose tensors are parameters or buffers. The logit of a class depends on the base
    session and on the class's own shots, and on no other class.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) float32 to logits (B, C), base classes first, of about the size of `scale`."""


class NetworkHead(nn.Module):
    """A head of some classes of a classifier of any kind.

    Args:
        network: see Classifier.
        chosen: the indices (N,) int64 of the classes among those of the network.
    """

    chosen: Tensor

    def __init__(self, network: nn.Module, chosen: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("chosen", chosen)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, N)."""
        logits: Tensor = self.network(features)
        return logits.float()[:, self.chosen]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.chosen)

    def first(self, classes: int) -> "NetworkHead":
        """Make the head of the first classes alone."""
        return NetworkHead(self.network, self.chosen[:classes])

    def select(self, classes: Tensor) -> "NetworkHead":
        """Make the head of some classes, by their indices (N,) int64."""
        return NetworkHead(self.network, self.chosen[classes])

    def describe(self) -> dict[str, Any]:
        """Describe the head, for a file that holds its program."""
        return {"network": type(self.network).__name__}


AnyHead = Head | NetworkHead


def on_unit_sphere(vectors: Tensor) -> Tensor:
    """Bring each row to length 1, in float64, as heads are computed; a zero row stays one."""
    return F.normalize(vectors.to(torch.float64), dim=1)
