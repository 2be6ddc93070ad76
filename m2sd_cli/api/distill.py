"""Stage 2, paper sections 3.2 and 3.3: self-distillation on virtual classes, then session 0."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from m2sd_cli import progress
from m2sd_cli.api.recorded_data import find_folder, recorded_data, recorded_info, say_changes
from m2sd_cli.api.stage import (
    Request,
    already_finished,
    named_data,
    remembering_folder,
    require_one_beginning,
    take_arguments,
    takes_arguments,
    within_budget,
)
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.config.files import NO_OPTIONS, OptionsFile
from m2sd_cli.config.merging import DEFAULT_ORIGIN, RECIPE_ORIGIN, Sources, resolve_with_origins
from m2sd_cli.config.option import shown
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.inference.features import Sample, base_features, held_out_features
from m2sd_cli.inference.session import require_directions, to_transform
from m2sd_cli.method.base_statistics import HeldOut, keeps_class_covariances
from m2sd_cli.method.debiased import SHARE, allowed_rank
from m2sd_cli.method.familiarity import known_score_name
from m2sd_cli.method.network import Network
from m2sd_cli.method.stage3 import choices, default_classifier
from m2sd_cli.paths import expand
from m2sd_cli.recipes import find_recipe
from m2sd_cli.registry import one_of
from m2sd_cli.reports.draws import LabelledFeatures
from m2sd_cli.reports.rehearsal import choose_for_classes, sample_images
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import ClassRecord, Manifest
from m2sd_cli.runs.reader import StoredManifest, session_name
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.tables import ALL_BASE_COST, BASE_COST, CLASSIFIERS
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.distill import (
    build_enhancement,
    distill_module,
    distill_objective,
    load_network,
    loss_weights,
    saves_memory,
)
from m2sd_cli.training.epochs import end_log
from m2sd_cli.training.execution import Execution, executing
from m2sd_cli.training.fitting import fit
from m2sd_cli.training.job import Fitted, Job
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.records import (
    base_records,
    classes_digest,
    data_record,
    machines,
    name_changes,
    plugins_record,
    provenance,
    skipped_records,
)
from m2sd_cli.training.resuming import begun_config, load_state, refuse_unless_new, require_same


@takes_arguments(DistillConfig)
def distill(
    data: Path | str | None = None,
    *,
    run: Path | str | None = None,
    resume: bool = False,
    requeue: bool = False,
    force: bool = False,
    ignore_new: bool = False,
    source: Path | str | None = None,
    **arguments: Any,
) -> StoredManifest | None:
    """Distil the network on virtual classes, and make session 0 of it: stage 2. Other arguments as for `pretrain`.

    Args:
        data: the folder of pretrain, if it is not where it was; not needed for a built-in data set.
        recipe: the name of a recipe; None for that of stage 1 and for the table [distill] of the file that stage 1 was
            given, `none` for neither.
        ignore_new: leave out the images of a folder that pretrain did not have.
        source: a run whose stage 1 to begin with, which is copied into a run folder without one.

    Returns:
        The manifest of session 0; None if `stop_after` ended the training.

    Raises:
        M2sdError: one of its kinds; the chain is as it was, and after InterruptedTrainingError the training saved.
    """
    require_one_beginning(resume, requeue, force)
    request, asked = take_arguments(data, arguments)
    find_recipe(request.recipe)
    request = replace(request, ignore_new=ignore_new)
    folder = open_run(run)
    origin = None if source is None else RunFolder(expand(source, "--from"))
    first = find_stage_1(folder, origin)  # raises before the lock would make a missing folder
    if origin is not None and request.data is None:
        request = replace(request, data=find_folder(origin, first.manifest, None))
    with progress.stage("distill"), executing(asked, folder, "distill") as execution:
        parent = find_stage_1(folder, origin)
        if resume or (requeue and (folder.sessions() or StateStore(folder).exists())):
            job = _resume(request, folder, parent, execution)
        else:
            job = begin(request, folder, parent, execution, force)
        if isinstance(job, StoredManifest):
            return job
        if origin is not None and not folder.has_pretrain():
            folder.copy_pretrain(origin)
        with remembering_folder(job):
            return fit_distill(job)


def find_stage_1(folder: RunFolder, origin: RunFolder | None) -> StoredManifest:
    """Return the manifest of the stage 1 to begin with.

    Args:
        folder: the run folder.
        origin: the run that stage 1 is copied from, if it is not there yet; None for the run itself.

    Raises:
        UsageError: several processes would copy at once.
        RunError: there is no stage 1, or the run has another one than that it would be copied from.
    """
    if origin is None:
        return folder.pretrain()
    if is_distributed():
        raise UsageError("--from: one process copies stage 1; leave torchrun out")
    first = origin.pretrain()
    if folder.has_pretrain() and folder.pretrain().record.sha256 != first.record.sha256:
        raise RunError(f"{folder.path}: it has another stage 1 than {origin.path}; name a new folder with --run")
    return first


def copy_session_0(source: RunFolder, folder: RunFolder, config: DistillConfig) -> StoredManifest:
    """Make session 0 of a run of the trained network of another one, which differs in its classifier alone.

    Args:
        source: the other run, with the same stage 1.
        folder: the run, which has no session yet.
        config: the options of stage 2, which has epochs; the other run had the same but for the classifier.

    Raises:
        RunError: the run could not be written.
        DamagedError: the other run is damaged.
    """
    stored = source.session(0)
    manifest = stored.manifest
    classifier = config.classifier or default_classifier(manifest.backbone.similarity)
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


def begin(
    request: Request, folder: RunFolder, parent: StoredManifest, execution: Execution, force: bool
) -> Job[DistillConfig]:
    """Choose the configuration of a new training, and open the images of stage 1.

    Raises:
        RunError: there is a finished or interrupted training, and no `force`; or stage 1 had other images.
        UsageError, DataError: an option makes no sense, or the images cannot be read.
    """
    sessions = folder.sessions()
    refuse_unless_new(StateStore(folder), f"session {sessions[-1]} is in it" if sessions else None, force)
    info = recorded_info(parent.manifest)
    defaults = info.defaults if info else FOLDER_DEFAULTS
    followed = find_recipe(request.recipe or parent.manifest.recipe)
    inherited = _inherited(request, parent)
    init, seed = parent.manifest.config.get("init"), parent.manifest.seed
    settings, origins = resolve_with_origins(
        DistillConfig, Sources(defaults, request.config, request.options, followed.options, inherited, init, seed)
    )
    if execution.time_budget is not None:
        settings = within_budget(settings, request.options)
    choose_classifier(settings, parent)
    data = _open_images(folder, request, parent, execution)
    # The cost of a recipe is for the images that it holds out. With --held-out 0 the margin is one by distance instead.
    if origins["base_cost"] not in (DEFAULT_ORIGIN, RECIPE_ORIGIN) and data.held_out is None:
        raise UsageError(
            f"--base-cost {settings.base_cost:g}: no base image is held out to measure it with; leave it out, or give "
            f"pretrain --held-out"
        )
    classes = base_classes(folder, parent, data)
    return Job(
        "distill", folder, data, classes, settings, execution, recipe=followed.name, parent=parent, origins=origins
    )


def _inherited(request: Request, parent: StoredManifest) -> OptionsFile:
    """Return the file of options that stage 1 was given, unless another one or a recipe was named."""
    file = OptionsFile(None, parent.manifest.options_file)
    if request.config is not None or request.recipe is not None or "distill" not in file.tables:
        return NO_OPTIONS
    options = ", ".join(f"{name} {shown(value)}" for name, value in file.tables["distill"].items())
    progress.say(f"distill: with the options of pretrain's --config: {options}; --recipe none leaves them out")
    return file


def _resume(
    request: Request, folder: RunFolder, parent: StoredManifest, execution: Execution
) -> Job[DistillConfig] | StoredManifest:
    """Find the configuration of an interrupted training, or the manifest of a finished one.

    Raises:
        RunError: there is no training, or stage 1 had other images.
        UsageError: an option was given that could change the result.
    """
    store = StateStore(folder)
    given = request.given(DistillConfig)
    if folder.sessions() and not store.exists():
        return already_finished(folder.session(0), parent, given, execution, request)
    state = load_state(store, "distill")
    require_same(state, given, execution)
    execution = execution.resumed_from(state)
    settings = begun_config(store, state, DistillConfig)
    data = _open_images(folder, request, parent, execution)
    classes = base_classes(folder, parent, data)
    return Job("distill", folder, data, classes, settings, execution, recipe=state.recipe, parent=parent, state=state)


def _open_images(run: RunFolder, request: Request, parent: StoredManifest, execution: Execution) -> DataSet:
    """Open the images of stage 1; a folder has to be named again if it is not where it was."""
    first = parent.manifest
    name = request.data or (named_data(request.config) if first.data.kind == "folder" else None)
    with execution.group.local_main_first():
        return recorded_data(
            first, find_folder(run, first, name), request.data_root, first.transform.crop, request.ignore_new
        )


def base_classes(run: RunFolder, parent: StoredManifest, data: DataSet) -> list[ClassRecord]:
    """Record the base classes with their images, which have to be those of stage 1.

    Raises:
        RunError: stage 1 had other images.
    """
    classes = base_records(data)
    if classes_digest(classes) != classes_digest(parent.manifest.classes):
        raise RunError(
            f"{run.path}: pretrained on other images than those of {data.name}; give the same --data: "
            f"{name_changes(classes, parent.manifest.classes)}{say_changes(data, parent.manifest)}"
        )
    return classes


def _begin_with_means(network: Network, job: Job[DistillConfig]) -> None:
    """Turn the rows of W to the class means; a stage 1 without training leaves them random. W keeps its size."""
    if job.state is not None:
        return
    backbone = network.backbone.to(job.execution.device).to(memory_format=torch.channels_last)
    means, _ = base_features(backbone, job.data.train, len(job.classes), job.data.transform, group=job.execution.group)
    with torch.no_grad():
        weight = network.class_weights.weight
        weight.copy_(F.normalize(means, dim=1) * weight.norm(dim=1).mean())


def is_trained(config: DistillConfig, parent: StoredManifest) -> bool:
    """Tell whether the network has been trained once stage 2 has ended."""
    return bool(config.epochs or parent.manifest.config.get("epochs"))


def choose_classifier(config: DistillConfig, parent: StoredManifest) -> str:
    """Return the classifier of stage 3.

    Raises:
        UsageError: it compares directions where stage 1 was not trained to, or needs too many covariances.
    """
    similarity = parent.manifest.backbone.similarity
    classifier = config.classifier or default_classifier(similarity, is_trained(config, parent))
    require_directions(classifier, similarity)
    classes, width = len(parent.manifest.classes), parent.manifest.backbone.width
    if CLASSIFIERS[classifier].by_class and not keeps_class_covariances(classes, width):
        raise UsageError(
            f"--classifier {classifier}: the covariances of {classes} classes of {width} features would take too much "
            f"memory; choose {one_of(choices(similarity, by_class=False))}"
        )
    return classifier


def base_cost(config: DistillConfig, data: DataSet) -> float | None:
    """Return the points of accuracy that a new class may cost; None where no held-out image measures them.

    The costs of new classes add up. Where a data set tells the classes of its sessions, all of them may cost as much.
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
    run, data, config, execution, parent = job.run, job.data, job.config, job.execution, job.parent
    assert parent is not None
    group = execution.group
    weights = loss_weights(config)
    record = parent.manifest.backbone
    trained = is_trained(config, parent)
    classifier = choose_classifier(config, parent)
    chosen = sample_images(data.train.labels, len(job.classes))
    sample = Sample(chosen) if config.classifier is None and not trained else None
    with deterministic_algorithms(execution.deterministic):
        network = load_network(run, parent)
        fitted: Fitted[DistillConfig] | None = Fitted(config)
        if config.epochs:
            if not parent.manifest.config.get("epochs"):
                _begin_with_means(network, job)
            recompute = saves_memory(execution.device, group.size)
            enhancement = build_enhancement(network, config, weights)
            module = distill_module(network, enhancement, recompute)
            fitted = fit(job, module, distill_objective(network, enhancement, config, weights))
            if fitted is None:
                return None
        assert fitted is not None
        backbone = network.backbone.to(execution.device).to(memory_format=torch.channels_last)
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
            **provenance(execution, fitted.seconds),
        ),
    )
    end_log(run.path, job.stage, len(fitted.history))
    if CLASSIFIERS[classifier].base_cost:
        _say_margin(classifier, stored.manifest.base_cost, held_out, len(job.classes))
    group.barrier()
    return stored


def _say_margin(classifier: str, cost: float | None, held_out: HeldOut | None, classes: int) -> None:
    """Say by what the base classes are held back."""
    if held_out is None or cost is None:
        say = f"no base image is held out: base classes are held back by {SHARE:.0%} of the distance between them"
    elif allowed_rank(len(held_out.labels), classes, cost):
        say = f"a new class may cost {cost:g} points of base classes, by {len(held_out.labels)} images held out"
    else:
        say = f"{len(held_out.labels)} images held out are too few to tell {cost:g} points: no base class is held back"
    progress.say(f"{classifier}: {say}")
