"""f = W^T phi: a backbone under class weights, trained by stages 1 and 2."""

from typing import NamedTuple

from torch import Tensor, nn

from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.class_weights import ClassWeights


class Output(NamedTuple):
    """Logits (B, C) beside the features that they were made from."""

    logits: Tensor
    features: Features


class Network(nn.Module):
    """f(x) = W^T phi(x), paper section 3.1."""

    def __init__(self, backbone: Backbone, class_weights: ClassWeights) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_weights = class_weights

    def forward(self, x: Tensor) -> Output:
        """Map normalised images (B, 3, H, W) to logits and features."""
        features: Features = self.backbone(x)
        return Output(self.class_weights(features.pooled), features)
