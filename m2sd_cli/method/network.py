"""f = W^T phi: a backbone under a classifier, what stages 1 and 2 train."""

from typing import NamedTuple

from torch import Tensor, nn

from m2sd_cli.method.backbone import Backbone, Features
from m2sd_cli.method.classifiers import Classifier


class Output(NamedTuple):
    """Logits (B, C) beside the features that they were made from."""

    logits: Tensor
    features: Features


class Network(nn.Module):
    """f(x) = W^T phi(x), paper section 3.1."""

    def __init__(self, backbone: Backbone, classifier: Classifier) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, x: Tensor) -> Output:
        """Normalised images (B, 3, H, W) to logits and features."""
        features: Features = self.backbone(x)
        return Output(self.classifier(features.pooled), features)
