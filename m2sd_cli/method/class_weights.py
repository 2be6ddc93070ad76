"""W: a row a class, compared with the pooled feature."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.numerics import at_least_float32

SIMILARITIES = ("cosine", "linear")


def cosine_logits(features: Tensor, weight: Tensor, scale: float) -> Tensor:
    """S <phi, w_c> / (|phi| |w_c|) for features (B, D), weight (C, D) and scale S: (B, C), each within [-S, S].

    A zero vector has cosine 0 with everything.
    """
    return scale * F.linear(F.normalize(features, dim=1), F.normalize(weight, dim=1))


def class_logits(features: Tensor, weight: Tensor, similarity: str, scale: float) -> Tensor:
    """f(x) = W^T phi(x), paper section 3.1: features (B, D) and rows of W (C, D) to logits (B, C).

    `scale` is the factor of the cosine; linear logits have none.

    Raises:
        ValueError: the similarity is not one of SIMILARITIES.
    """
    if similarity == "cosine":
        return cosine_logits(features, weight, scale)
    if similarity == "linear":
        return F.linear(features, weight)
    raise ValueError(f"unknown similarity {similarity!r}: choose from {', '.join(SIMILARITIES)}")


class ClassWeights(nn.Module):
    """The trained W of stages 1 and 2: C rows of width D, without bias, so that a class is one row and nothing more."""

    def __init__(self, width: int, classes: int, similarity: str = "cosine", scale: float = 16.0) -> None:
        super().__init__()
        self.similarity = similarity
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(classes, width))
        if similarity == "cosine":
            # The gradient of a cosine shrinks as its row grows: rows as short as a linear layer's, 0.6 instead of 8 at
            # width 64, turn by too much a step.
            nn.init.normal_(self.weight)
        else:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, C)."""
        # In float32 even under autocast: bf16 tells logits of 8 to 16 apart by steps of 0.06 only.
        with torch.autocast(features.device.type, enabled=False):
            return class_logits(at_least_float32(features), self.weight, self.similarity, self.scale)
