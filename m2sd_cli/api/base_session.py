"""Stage 2 trained by a job, and the base session that its network becomes."""

import time
from dataclasses import asdict

import torch
import torch.nn.functional as F

from m2sd_cli import progress
from m2sd_cli.checkpoints import BaseCheckpoint, build_recorded
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.classifier import require_classifier
from m2sd_cli.inference.features import Sample, base_features, held_out_features
from m2sd_cli.inference.session import to_transform
from m2sd_cli.method.base_statistics import HeldOut, keeps_class_covariances
from m2sd_cli.method.debiased import SHARE, allowed_rank
from m2sd_cli.method.familiarity import known_score_name
from m2sd_cli.method.network import Network
from m2sd_cli.method.stage3 import choices, default_classifier
from m2sd_cli.registry import one_of
from m2sd_cli.reports.draws import LabelledFeatures
from m2sd_cli.reports.rehearsal import choose_for_classes, sample_images
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.runs.reader import StoredManifest, session_name
from m2sd_cli.tables import ALL_BASE_COST, BASE_COST, CLASSIFIERS
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.distill import (
    build_enhancement,
    distill_module,
    distill_objective,
    load_network,
    loss_weights,
)
from m2sd_cli.training.epochs import end_log
from m2sd_cli.training.fitting import fit
from m2sd_cli.training.job import Fitted, Job
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.records import (
    data_record,
    machines,
    plugins_record,
    provenance,
    skipped_records,
)


def is_trained(config: DistillConfig, parent: StoredManifest) -> bool:
    """Tell whether the network has been trained once stage 2 has ended."""
    return bool(config.epochs or parent.manifest.config.get("epochs"))


def choose_classifier(config: DistillConfig, run: RunFolder, parent: StoredManifest) -> str:
    """Return the classifier of stage 3.

    Args:
        config: of stage 2.
        run: that has stage 1.
        parent: the manifest of stage 1.

    Raises:
        UsageError: it compares directions where stage 1 was not trained to, or needs too many covariances.
        M2sdError: it is of another package, and cannot be imported.
    """
    similarity = parent.manifest.backbone.similarity
    classifier = config.classifier or default_classifier(similarity, is_trained(config, parent))
    require_classifier(classifier, similarity)
    if CLASSIFIERS[classifier].by_class:
        backbone = build_recorded(run, parent)
        backbone.pooled_levels = config.levels
        require_kept(classifier, similarity, len(parent.manifest.classes), backbone.session_width)
    return classifier


def require_kept(classifier: str, similarity: str, classes: int, width: int) -> None:
    """Refuse a classifier that needs the covariance of each class if session 0 will not keep them.

    Args:
        similarity: of the trained W.
        classes: number of base classes.
        width: of the features that the sessions compare.

    Raises:
        UsageError: they would take too much memory; the message lists the other classifiers.
    """
    if not keeps_class_covariances(classes, width):
        raise UsageError(
            f"--classifier {classifier}: the covariances of {classes} classes of {width} features would take too "
            f"much memory; choose {one_of(choices(similarity, by_class=False))}"
        )


def require_measured(cost: float | None, held_out: bool) -> None:
    """Refuse a `base_cost` that no held-out image measures.

    Raises:
        UsageError: there is a cost, and no base image is held out.
    """
    if cost is not None and not held_out:
        raise UsageError(
            f"--base-cost {cost:g}: no base image is held out to measure it with; leave it out, or give "
            f"pretrain --held-out"
        )


def base_cost(config: DistillConfig, data: DataSet) -> float | None:
    """Return the points of accuracy that a new class may cost; None where no held-out image measures them.

    The costs of new classes add up. All classes of a data set's sessions together may cost ALL_BASE_COST points.
    """
    if data.held_out is None:
        return None
    if config.base_cost is not None:
        return config.base_cost
    taught = len(data.classes) - data.base if data.sessions else 0
    return min(BASE_COST, ALL_BASE_COST / taught) if taught else BASE_COST


def fit_distill(job: Job[DistillConfig]) -> StoredManifest | None:
    """Train stage 2 of a job into its run folder, and make session 0, which replaces the sessions of the chain.

    Session 0 holds the backbone, the class means, the base statistics of stage 3's classifiers, and the features of
    held-out images, to which probabilities are calibrated. Feature enhancement and W' are dropped.

    Returns:
        None if the time limit ended it.

    Raises:
        M2sdError: see `fit` and `load_network`.
    """
    began = time.monotonic()
    run, data, config, execution, parent = job.run, job.data, job.config, job.execution, job.parent
    assert parent is not None
    group = execution.group
    weights = loss_weights(config)
    trained = is_trained(config, parent)
    classifier = choose_classifier(config, run, parent)
    chosen = sample_images(data.train.labels, len(job.classes))
    sample = Sample(chosen) if config.classifier is None and not trained else None
    with deterministic_algorithms(execution.deterministic):
        network = load_network(run, parent)
        fitted: Fitted[DistillConfig] | None = Fitted(config)
        if config.epochs:
            if not parent.manifest.config.get("epochs"):
                _begin_with_means(network, job)
            enhancement = build_enhancement(network, config, weights)
            module = distill_module(network, enhancement)
            fitted = fit(job, module, distill_objective(network, enhancement, config, weights))
            if fitted is None:
                return None
        assert fitted is not None
        backbone = network.backbone.to(execution.device).to(memory_format=torch.channels_last)
        backbone.pooled_levels = config.levels
        record = parent.manifest.backbone.model_copy(update={"levels": config.levels})
        views = parent.manifest.transform.model_copy(update={"views": config.views})
        transform = to_transform(views)
        with freed_memory_kept(execution.device):
            means, statistics = base_features(
                backbone, data.train, len(job.classes), transform, group=group, sample=sample
            )
            held_out = None
            if data.held_out is not None:
                held_out = HeldOut(*held_out_features(backbone, data.held_out, transform, group=group))
        checkpoint = BaseCheckpoint(backbone, means, statistics, held_out)
    name = session_name(0)
    if not group.is_main:
        group.barrier()
        return run.read(name)
    choice = None
    if sample is not None:
        known = LabelledFeatures(sample.features, data.train.labels[chosen])
        choice, classifier = choose_for_classes(known, len(job.classes), record, classifier)
    stored = run.write_manifest(
        name,
        Manifest(
            kind="base",
            session=0,
            parent=parent.record,
            checkpoint=run.write_checkpoint(name, checkpoint.tensors()),
            classes=job.classes,
            data=data_record(data),
            backbone=record,
            transform=views,
            config=asdict(fitted.config),
            classifier=classifier,
            choice=choice,
            base_cost=base_cost(config, data),
            known_score=known_score_name(trained),
            seed=config.seed,
            history=fitted.history,
            machines=machines(execution, job.state) if config.epochs else [],
            skipped=skipped_records(data.skipped),
            recipe=job.recipe,
            plugins=plugins_record(data_record(data), record.name, classifier, config),
            **provenance(execution, fitted.seconds if config.epochs else time.monotonic() - began),
        ),
    )
    end_log(run, job.stage, len(fitted.history))
    if CLASSIFIERS[classifier].base_cost:
        _say_margin(classifier, stored.manifest.base_cost, held_out, len(job.classes))
    group.barrier()
    return stored


def _begin_with_means(network: Network, job: Job[DistillConfig]) -> None:
    """Turn the rows of W to the class means; a stage 1 without training leaves them random. W keeps its size."""
    if job.state is not None:
        return
    backbone = network.backbone.to(job.execution.device).to(memory_format=torch.channels_last)
    means, _ = base_features(backbone, job.data.train, len(job.classes), job.data.transform, group=job.execution.group)
    with torch.no_grad():
        weight = network.class_weights.weight
        weight.copy_(F.normalize(means, dim=1) * weight.norm(dim=1).mean())


def _say_margin(classifier: str, cost: float | None, held_out: HeldOut | None, classes: int) -> None:
    """Say how large the margin is by which base classes have to win."""
    images = 0 if held_out is None else len(held_out.labels)
    if not images or cost is None:
        say = f"no image is held out; the margin of new classes is {SHARE:.0%} of the distance between base classes"
    elif allowed_rank(images, classes, cost):
        say = f"a new class may cost {cost:g} points of base accuracy, measured on {images} held-out images"
    else:
        say = f"new classes have no margin: {images} held-out images are too few to measure {cost:g} points"
    progress.say(f"{classifier}: {say}")


def copy_session_0(source: RunFolder, folder: RunFolder, config: DistillConfig) -> StoredManifest:
    """Make session 0 of a run of the trained network of another one, which differs in its classifier alone.

    Args:
        source: the other run, with the same stage 1.
        folder: the run, which has no session yet.
        config: the options of stage 2, which has epochs; the other run had the same but for the classifier.

    Raises:
        UsageError: the network cannot answer with the classifier.
        RunError: the run could not be written.
        DamagedError: the other run is damaged.
    """
    stored = source.session(0)
    manifest = stored.manifest
    classifier = choose_classifier(config, folder, folder.pretrain())
    plugins = plugins_record(manifest.data, manifest.backbone.name, classifier, config)
    with folder.locked("distill"):
        return folder.write_manifest(
            session_name(0),
            manifest.model_copy(
                update={
                    "checkpoint": folder.copy_checkpoint(source, stored),
                    "config": {**manifest.config, "classifier": config.classifier},
                    "classifier": classifier,
                    "plugins": plugins,
                }
            ),
        )
