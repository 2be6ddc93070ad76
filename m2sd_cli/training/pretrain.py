"""Stage 1, paper section 3.1: cross-entropy of f(x) = W^T phi(x) on the base images."""

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

from m2sd_cli.checkpoints import PretrainCheckpoint
from m2sd_cli.config import PretrainConfig
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.features import embed, require_finite
from m2sd_cli.method.backbones import build_backbone
from m2sd_cli.method.classifiers import Classifier
from m2sd_cli.method.network import Network
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, Manifest, TrainingState
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.initial_weights import IMAGENET, NO_INIT, initialise
from m2sd_cli.training.loop import ACCURACY, Objective
from m2sd_cli.training.records import (
    base_records,
    classes_digest,
    data_record,
    provenance,
    skipped_records,
    transform_record,
)
from m2sd_cli.training.stage import Execution, train

LOOKED_AT = 16  # images


def build_network(config: PretrainConfig, classes: int) -> Network:
    """A new network of a configuration; the seed decides its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(config.backbone)
        return Network(backbone, Classifier(backbone.width, classes, config.classifier, config.scale))


def pretrain_objective(network: Network) -> Objective:
    """Cross-entropy of f(x) on clean images, and the share of them that f labels rightly."""

    def objective(
        x: Tensor, labels: Tensor, generator: torch.Generator, rows: slice
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits, wanted = network(x[rows]).logits.float(), labels[rows]
        return F.cross_entropy(logits, wanted), {ACCURACY: (logits.argmax(dim=1) == wanted).float().mean()}

    return objective


def look_once_more(network: Network, data: DataSet) -> None:
    """The last step's loss is that of the weights before it: see what it has made of them.

    Raises:
        TrainingError: features of training images are not finite.
    """
    for pixels, _ in data.train.batches(data.transform, LOOKED_AT, slice(LOOKED_AT)):
        require_finite(embed(network.backbone.eval(), pixels, data.transform))


def run_pretrain(
    run: RunFolder,
    data: DataSet,
    config: PretrainConfig,
    execution: Execution,
    init: str | None,
    resumed: TrainingState | None,
    recipe: str | None = None,
) -> StoredManifest | None:
    """Stage 1 into a run folder that the caller has locked. Everything that an earlier run left there goes, at the end.

    Args:
        init: where the weights begin, if not at random; not needed to resume.
        resumed: the state to go on from.
        recipe: the name of the one that the configuration follows.

    Returns:
        None if the time limit ended it.

    Raises:
        M2sdError: see `train` and `initialise`.
    """
    if init == IMAGENET and config.backbone != "resnet18":
        raise UsageError(f"--init imagenet: these are weights of resnet18, not of {config.backbone}; --init none")
    if data.base < 2:
        raise UsageError(f"{data.name}: {data.base} base class; pretrain needs at least two")
    classes = base_records(data)
    network = build_network(config, data.base)
    if init not in (None, NO_INIT) and resumed is None:
        assert init is not None
        with execution.group.local_main_first():
            initialise(network.backbone, init)

    objective = pretrain_objective(network)
    store = StateStore(run)
    digest = classes_digest(classes)
    finished = train(PRETRAIN, store, network, objective, data, digest, None, config, execution, resumed, recipe)
    if finished is None:
        return None
    look_once_more(network, data)
    if not execution.group.is_main:
        execution.group.barrier()
        return run.pretrain()
    checkpoint = PretrainCheckpoint(network.backbone, network.classifier.weight)
    stored = run.write_manifest(
        PRETRAIN,
        Manifest(
            kind="pretrain",
            checkpoint=run.write_checkpoint(PRETRAIN, checkpoint.tensors()),
            classes=classes,
            data=data_record(data),
            backbone=BackboneRecord(
                name=config.backbone,
                width=network.backbone.width,
                classifier=config.classifier,
                scale=config.scale,
            ),
            transform=transform_record(data.transform),
            config=asdict(config),
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
