"""W: what turns a pooled feature into one logit a class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2sd_cli.method.numerics import at_least_float32

CLASSIFIERS = ("cosine", "linear")


def cosine_logits(features: Tensor, weight: Tensor, scale: float) -> Tensor:
    """S <phi, w_c> / (|phi| |w_c|) for features (B, D) and weight (C, D): (B, C), each within [-s, s].

    A zero vector has cosine 0 with everything.
    """
    return scale * F.linear(F.normalize(features, dim=1), F.normalize(weight, dim=1))


def classify(features: Tensor, weight: Tensor, classifier: str, scale: float) -> Tensor:
    """f(x) = W^T phi(x), paper section 3.1: features (B, D) and rows of W (C, D) to logits (B, C).

    `scale` is the cosine classifier's factor; the linear one has none.

    Raises:
        ValueError: the classifier is not one of CLASSIFIERS.
    """
    if classifier == "cosine":
        return cosine_logits(features, weight, scale)
    if classifier == "linear":
        return F.linear(features, weight)
    raise ValueError(f"unknown classifier {classifier!r}: choose from {', '.join(CLASSIFIERS)}")


class Classifier(nn.Module):
    """The trained W of stages 1 and 2: C rows of width D, without bias, so that a class is one row and nothing more."""

    def __init__(self, width: int, classes: int, kind: str = "cosine", scale: float = 16.0) -> None:
        super().__init__()
        self.kind = kind
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(classes, width))
        if kind == "cosine":
            # The gradient of a cosine shrinks as its row grows: rows as short as a linear layer's, 0.6 instead of 8 at
            # width 64, turn by too much a step. Ten epochs on CIFAR-100's base end at a training loss of 1.41 this way,
            # and of 1.52 the other.
            nn.init.normal_(self.weight)
        else:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> logits (B, C)."""
        # In float32 whatever autocast says: bf16 tells logits of 8 to 16 apart by steps of 0.06 only.
        with torch.autocast(features.device.type, enabled=False):
            return classify(at_least_float32(features), self.weight, self.kind, self.scale)
