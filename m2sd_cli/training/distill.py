"""The objective of stage 2, paper sections 3.2 and 3.3: self-distillation on virtual classes."""

from dataclasses import fields

import torch
from torch import Tensor, nn

from m2sd_cli.checkpoints import PretrainCheckpoint
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.errors import UsageError
from m2sd_cli.method.class_weights import ClassWeights
from m2sd_cli.method.distillation import distillation_terms, total_loss
from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.loss_weights import LossWeights
from m2sd_cli.method.network import Network
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.loop import Objective


def loss_weights(config: DistillConfig) -> LossWeights:
    """Return the factors of the terms of L.

    Raises:
        UsageError: every factor is 0 although there are epochs to train.
    """
    weights = LossWeights(**{term.name: getattr(config, f"{term.name}_weight") for term in fields(LossWeights)})
    if config.epochs and not (weights.need_virtual or weights.clean):
        raise UsageError("every loss weight is 0: nothing would be trained; --epochs 0 leaves stage 1 as it is")
    return weights


def build_enhancement(network: Network, config: DistillConfig, weights: LossWeights) -> FeatureEnhancement | None:
    """Build FE and W' for a network, with weights that the seed decides; None if no term needs them."""
    if not weights.need_enhancement:
        return None
    class_weights = network.class_weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        widths = network.backbone.level_widths
        return FeatureEnhancement(
            widths,
            class_weights.weight.shape[0],
            class_weights.similarity,
            class_weights.scale,
            expansion=config.pyramid_width,
            attention=config.enhancement != "no-attention",
            pyramid=config.enhancement != "no-pyramid",
        )


def distill_module(network: Network, enhancement: FeatureEnhancement | None) -> nn.ModuleDict:
    """Put the modules that stage 2 optimises into one."""
    module = nn.ModuleDict({"network": network})
    if enhancement is not None:
        module["enhancement"] = enhancement
    return module


def distill_objective(
    network: Network, enhancement: FeatureEnhancement | None, config: DistillConfig, weights: LossWeights
) -> Objective:
    """Make the function that computes L and its terms on one batch of clean images."""

    def objective(
        x: Tensor, labels: Tensor, generator: torch.Generator, shard: slice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = distillation_terms(
            network,
            enhancement,
            x,
            labels,
            weights=weights,
            beta=config.beta,
            temperature=config.temperature,
            generator=generator,
            shard=shard,
            mixing=config.mixing,
            reduction=config.attention_reduction,
        )
        return total_loss(weights, terms), terms

    return objective


def load_network(run: RunFolder, stored: StoredManifest) -> Network:
    """Load the network of stage 1.

    Raises:
        DamagedError: the checkpoint does not match its manifest.
    """
    checkpoint = PretrainCheckpoint.read(run, stored)
    record = stored.manifest.backbone
    class_weights = ClassWeights(record.width, len(checkpoint.weight), record.similarity, record.scale)
    with torch.no_grad():
        class_weights.weight.copy_(checkpoint.weight)
    return Network(checkpoint.backbone, class_weights)
