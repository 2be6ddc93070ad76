"""The objective of stage 1, paper section 3.1: cross-entropy of f(x) = W^T phi(x) on the base images.

A term that draws the classes together may be added to it.
"""

import torch
from torch import Tensor

from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.method.backbone import build_backbone, check_features
from m2sd_cli.method.class_weights import ClassWeights
from m2sd_cli.method.losses import closeness, cross_entropy
from m2sd_cli.method.network import Network
from m2sd_cli.tables import BACKBONES
from m2sd_cli.training.loop import ACCURACY, Objective


def build_network(config: PretrainConfig, classes: int, image_size: int | None = None) -> Network:
    """Build a network with weights that the seed decides.

    Args:
        image_size: side of the images in pixels; None for a network that takes any.

    Raises:
        UsageError: the network cannot take images of that size.
        M2sdError: a network of another package does not keep the contract.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(config.backbone, image_size)
        if image_size is not None:
            with BACKBONES.blamed(config.backbone):
                backbone.check(image_size)
            if BACKBONES.is_foreign(config.backbone):
                check_features(backbone, config.backbone, image_size)
        return Network(backbone, ClassWeights(backbone.width, classes, config.similarity, config.scale))


def pretrain_objective(network: Network, config: PretrainConfig) -> Objective:
    """Make the function that computes the loss of f(x) on clean images, and the accuracy of f on them.

    Args:
        network: f.
        config: of stage 1. The loss is the cross-entropy less `closeness_weight` times `closeness`, which is of the
            pairs of one process.
    """
    weight = config.closeness_weight

    def objective(
        x: Tensor, labels: Tensor, _generator: torch.Generator, shard: slice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        output, classes = network(x[shard]), labels[shard]
        loss = cross_entropy(output.logits, classes)
        measures = {ACCURACY: (output.logits.argmax(dim=1) == classes).float().mean()}
        if weight:
            measures["closeness"] = closeness(output.features.pooled, classes)
            loss = loss - weight * measures["closeness"]
        return loss, measures

    return objective
