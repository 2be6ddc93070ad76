"""Stage 2, paper sections 3.2 and 3.3: self-distillation on virtual classes, then the base session."""

from dataclasses import asdict

import torch
from torch import Tensor, nn

from m2sd_cli.checkpoints import BaseCheckpoint, HeldOut, PretrainCheckpoint
from m2sd_cli.config import DistillConfig
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.inference.device import training_precision
from m2sd_cli.inference.features import base_features, held_out_features
from m2sd_cli.inference.session import require_directions, to_transform
from m2sd_cli.method.classifiers import Classifier
from m2sd_cli.method.distillation import LossWeights, distillation_terms
from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.network import Network
from m2sd_cli.method.stage3 import choices, default_classifier
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import ClassRecord, Manifest, TrainingState
from m2sd_cli.runs.reader import StoredManifest, session_name
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.loop import Objective
from m2sd_cli.training.records import base_records, classes_digest, data_record, provenance, skipped_records
from m2sd_cli.training.stage import Execution, Finished, train


def loss_weights(config: DistillConfig) -> LossWeights:
    """The factors of L's terms.

    Raises:
        UsageError: all of them are 0 although there are epochs to train.
    """
    weights = LossWeights(
        ce=config.ce_weight,
        kl=config.kl_weight,
        kd=config.kd_weight,
        attention=config.attention_weight,
        teacher=config.teacher_weight,
        clean=config.clean_weight,
    )
    if config.epochs and not (weights.need_virtual or weights.clean):
        raise UsageError("every loss weight is 0: nothing would be trained; --epochs 0 leaves stage 1 as it is")
    return weights


def makes_maps_again(device: torch.device, processes: int = 1) -> bool:
    """Whether large maps are made again for the backward pass rather than kept."""
    # A CPU shares its memory with all else, a GPU's is there to be used. In a team the parts of a batch may differ by
    # an image, and with it which maps are large: batch norms would wait for processes that make none of theirs again.
    return device.type == "cpu" and processes == 1


def build_enhancement(
    network: Network, config: DistillConfig, weights: LossWeights, recompute: bool = False
) -> FeatureEnhancement | None:
    """A new FE with its W' for a network, the seed deciding their weights; None if no term needs it."""
    if not weights.need_enhancement:
        return None
    classifier = network.classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        widths = network.backbone.architecture.level_widths
        return FeatureEnhancement(
            widths,
            classifier.weight.shape[0],
            classifier.kind,
            classifier.scale,
            expansion=config.pyramid_width,
            recompute=recompute,
            attention=config.enhancement != "no-attention",
            pyramid=config.enhancement != "no-pyramid",
        )


def distill_module(network: Network, enhancement: FeatureEnhancement | None, recompute: bool = False) -> nn.ModuleDict:
    """Everything that stage 2 optimises; `recompute` as for FE, here of the backbone."""
    network.backbone.recompute = recompute
    module = nn.ModuleDict({"network": network})
    if enhancement is not None:
        module["enhancement"] = enhancement
    return module


def distill_objective(
    network: Network, enhancement: FeatureEnhancement | None, config: DistillConfig, weights: LossWeights
) -> Objective:
    """L on one batch of clean images, and its terms."""

    def objective(
        x: Tensor, labels: Tensor, generator: torch.Generator, rows: slice
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
            rows=rows,
            mixing=config.mixing,
        )
        return weights.total(terms), terms

    return objective


def load_network(run: RunFolder, stored: StoredManifest) -> Network:
    """The network that stage 1 left.

    Raises:
        DamagedError: the checkpoint is not what its manifest says.
    """
    checkpoint = PretrainCheckpoint.read(run, stored)
    record = stored.manifest.backbone
    classifier = Classifier(record.width, len(checkpoint.weight), record.classifier, record.scale)
    with torch.no_grad():
        classifier.weight.copy_(checkpoint.weight)
    return Network(checkpoint.backbone, classifier)


def base_classes(run: RunFolder, stored: StoredManifest, data: DataSet) -> list[ClassRecord]:
    """The base classes with their images, which have to be those of stage 1.

    Raises:
        RunError: they are not.
    """
    classes = base_records(data)
    if classes_digest(classes) != classes_digest(stored.manifest.classes):
        raise RunError(
            f"{run.path}: pretrained on other images than those of {data.name}; give distill the same --data"
        )
    return classes


def run_distill(
    run: RunFolder,
    parent: StoredManifest,
    data: DataSet,
    config: DistillConfig,
    execution: Execution,
    resumed: TrainingState | None,
    recipe: str | None = None,
) -> StoredManifest | None:
    """Stage 2 and the base session into a run folder that the caller has locked. Later sessions go, at the end.

    Feature enhancement and its classifier are dropped: the base session holds the backbone, the class means,
    what the classifiers of stage 3 need to know of the base images, and the features of those that were held out,
    to which probabilities are calibrated.

    Returns:
        None if the time limit ended it.

    Raises:
        M2sdError: see `train`, `load_network` and `base_classes`.
    """
    weights = loss_weights(config)
    record = parent.manifest.backbone
    classifier = config.classifier or default_classifier(record.classifier)
    require_directions(classifier, record.classifier, choices(record.classifier, statistics=True))
    classes = base_classes(run, parent, data)
    network = load_network(run, parent)
    recompute = makes_maps_again(execution.device, execution.group.size)
    enhancement = build_enhancement(network, config, weights, recompute)
    module = distill_module(network, enhancement, recompute)
    objective = distill_objective(network, enhancement, config, weights)
    store = StateStore(run)
    if config.epochs:
        finished = train(
            "distill",
            store,
            module,
            objective,
            data,
            classes_digest(classes),
            parent.record,
            config,
            execution,
            resumed,
            recipe,
        )
        if finished is None:
            return None
    else:
        finished = Finished(0.0, training_precision(execution.precision, execution.device), [])
        network.to(execution.device).to(memory_format=torch.channels_last)
    seen = parent.manifest.transform.model_copy(update={"views": config.views})
    transform = to_transform(seen)
    means, statistics = base_features(network.backbone, data.train, len(classes), transform, group=execution.group)
    name = session_name(0)
    held_out = None
    if data.held_out is not None:
        held_out = HeldOut(*held_out_features(network.backbone, data.held_out, transform, group=execution.group))
    checkpoint = BaseCheckpoint(network.backbone, means, statistics, held_out)
    if not execution.group.is_main:
        execution.group.barrier()
        return run.read(name)
    stored = run.write_manifest(
        name,
        Manifest(
            kind="base",
            session=0,
            parent=parent.record,
            checkpoint=run.write_checkpoint(name, checkpoint.tensors()),
            classes=classes,
            data=data_record(data),
            backbone=record,
            transform=seen,
            config=asdict(config),
            classifier=classifier,
            seed=config.seed,
            history=finished.history,
            skipped=skipped_records(data.skipped),
            recipe=recipe,
            **provenance(
                execution.device, finished.precision, finished.seconds, execution.compiled, execution.deterministic
            ),
        ),
    )
    execution.group.barrier()
    return stored
