"""Stage 1: train backbone and classifier on the base classes."""

import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from m2sd_cli import progress
from m2sd_cli.api.course import tell_both
from m2sd_cli.api.recorded_data import find_folder, recorded_data
from m2sd_cli.api.stage import (
    Request,
    already_finished,
    chosen_protocol,
    named_data,
    refuse_shared_folder,
    remembering_folder,
    require_one_beginning,
    take_arguments,
    takes_arguments,
    within_budget,
)
from m2sd_cli.checkpoints import PretrainCheckpoint
from m2sd_cli.config.files import checked_tables
from m2sd_cli.config.merging import Sources, resolve_with_origins
from m2sd_cli.config.stages import NO_INIT, PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS, find_info, get_info, listed_names
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.recorded import list_files
from m2sd_cli.data.repeated import list_images, say_repeated
from m2sd_cli.data.skipping import say_skipped, skip_bad_images
from m2sd_cli.data.split_list import read_list
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.inference.features import embed, require_finite
from m2sd_cli.inference.skipping import check_images_together
from m2sd_cli.method.network import Network
from m2sd_cli.paths import expand
from m2sd_cli.recipes import Recipe, find_recipe
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import BackboneRecord, Manifest
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.tables import BACKBONES, TIMM
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.epochs import end_log
from m2sd_cli.training.execution import Execution, executing
from m2sd_cli.training.fitting import fit
from m2sd_cli.training.initial_weights import (
    IMAGENET,
    file_digest,
    initialise,
    known_weights,
    prepared_for_weights,
    require_weights,
    separate_origin,
    weights_record,
    without_path,
)
from m2sd_cli.training.job import Fitted, Job
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from m2sd_cli.training.records import (
    base_records,
    data_record,
    machines,
    plugins_record,
    provenance,
    skipped_records,
    split_record,
    transform_record,
)
from m2sd_cli.training.resuming import begun_config, load_state, refuse_unless_new, require_same

CHECKED_IMAGES = 16
LISTS = ("class_order", "split")  # options that may be files, of which a record has the bare name


@takes_arguments(PretrainConfig)
def pretrain(
    data: Path | str | None = None,
    *,
    run: Path | str | None = None,
    resume: bool = False,
    requeue: bool = False,
    force: bool = False,
    skip_bad: bool = False,
    **arguments: Any,
) -> StoredManifest | None:
    """Train backbone and W on the base classes: stage 1.

    Args:
        data: the name of a built-in data set or a folder; else the one that the file or the recipe names. It may be
            left out to resume on a built-in one.
        run: the run folder.
        data_root: the folder of built-in data sets.
        recipe: the name of a recipe of the package; `none` for none.
        config: a TOML file with a table [pretrain], and maybe `data`; it wins over the recipe. Its table [distill]
            is recorded, and followed by stage 2.
        device, precision: `auto` chooses.
        resume: go on with an interrupted training.
        requeue: begin, or go on, or return the manifest of the finished training, whichever there is to do.
        force: begin anew although there is a finished or interrupted one.
        stop_after: seconds after which to save and stop.
        time_budget: seconds that decide the number of epochs, by the time of the first steps; instead of `epochs`.
        save_every: seconds between two saves of the resumable state.
        compile: compile the network with torch.compile first.
        skip_bad: leave out images that cannot be read; the manifest lists them, and no later stage reads them. A
            training that is resumed leaves out the images that it began without.
        deterministic: use algorithms that repeat exactly on CUDA, too.
        on_epoch: a function that is called with the figures of every epoch when it has ended.
        tensorboard: the folder to write curves into for TensorBoard; needs the extra m2sd[tensorboard].

    Returns:
        The manifest of stage 1; None if `stop_after` ended the training, which can be resumed then.

    Raises:
        M2sdError: one of its kinds; the chain is as it was, and after InterruptedTrainingError the training saved.
    """
    require_one_beginning(resume, requeue, force)
    request, asked = take_arguments(data, arguments)
    followed = find_recipe(request.recipe)
    folder = open_run(run)
    name = request.data if resume else require_data(request, followed)
    if name is not None:
        refuse_shared_folder(folder, name)
    with progress.stage(PRETRAIN), executing(replace(asked, force=force), folder, PRETRAIN) as execution:
        if resume or (requeue and (folder.has_pretrain() or StateStore(folder).exists())):
            job = _resume(request, folder, execution, requeue)
        else:
            job = begin(request, followed, folder, execution, force, skip_bad)
        if isinstance(job, StoredManifest):
            return job
        say_skipped(job.data.skipped)
        say_repeated(list_images(job.data.train, job.data.classes, job.data.location))
        if job.state is None:
            # What is missing is told before an estimate takes its time.
            require_weights(job.config.backbone, job.init)
            info = None if data_record(job.data).kind == "folder" else get_info(job.data.name)
            tell_both(job, info.defaults if info else FOLDER_DEFAULTS, followed)
        with remembering_folder(job):
            return fit_pretrain(job)


def require_data(request: Request, followed: Recipe) -> str:
    """Return the name of the images of a new training.

    Raises:
        UsageError: nothing names them.
    """
    name = request.data or named_data(request.config, followed)
    if not name:
        raise UsageError(f"name the images with --data: {listed_names()}, or a folder; or choose a --recipe")
    return name


def begin(
    request: Request, followed: Recipe, folder: RunFolder, execution: Execution, force: bool, skip_bad: bool
) -> Job[PretrainConfig]:
    """Choose configuration and images of a new training.

    Raises:
        RunError: there is a finished or interrupted training, and no `force`.
        UsageError, DataError: an option makes no sense, or the images cannot be read.
    """
    name = require_data(request, followed)
    info = find_info(name)
    refuse_unless_new(StateStore(folder), "a finished pretrain is in it" if folder.has_pretrain() else None, force)
    defaults = info.defaults if info else FOLDER_DEFAULTS
    asked, origins = resolve_with_origins(
        PretrainConfig, Sources(defaults, request.config, request.options, followed.options)
    )
    settings = separate_origin(asked)
    if info is not None and settings.image_size is not None:
        raise UsageError(
            f"--image-size is for folders; {info.name}'s images have {info.image_size} pixels; leave it out"
        )
    protocol = chosen_protocol(info, settings)
    with execution.group.local_main_first():
        data = open_data(
            name,
            request.data_root,
            settings.image_size,
            protocol=protocol,
            transform=settings.transform,
            listed=None if settings.split is None else read_list(expand(settings.split, "--split")),
        )
    if info is not None and data.protocol is not None:
        original = DATA_SETS[info.simulates or info.name]
        progress.say(f"{original.name}: {data.protocol.describe(original.classes)}")
    if info is None and settings.transform is None:
        data = prepared_for_weights(data, known_weights(settings.backbone, settings.init), settings.image_size)
    if skip_bad:
        data = skip_bad_images(data, partial(check_images_together, group=execution.group))
    data = choose_training(data, settings.held_out, settings.images_per_class)
    if execution.time_budget is not None:
        settings = within_budget(settings, request.options)
    files: dict[str, Any] = {
        name: value and Path(value).name for name, value in asdict(settings).items() if name in LISTS
    }
    recorded = replace(settings, init=without_path(settings.init), **files)
    return Job(
        PRETRAIN,
        folder,
        data,
        base_records(data),
        recorded,
        execution,
        recipe=followed.name,
        options_file=checked_tables(request.config),
        init=settings.init,
        origins=origins,
    )


def _resume(
    request: Request, folder: RunFolder, execution: Execution, requeue: bool
) -> Job[PretrainConfig] | StoredManifest:
    """Find configuration and images of an interrupted training, or the manifest of a finished one.

    Args:
        requeue: a stage 2 under way, which has begun from the finished training, is left to its own command.

    Raises:
        RunError: there is no training.
        UsageError: an option was given that could change the result.
    """
    store = StateStore(folder)
    given = request.given(PretrainConfig)
    given = _as_recorded(given)
    if folder.has_pretrain() and (not store.exists() or (requeue and store.load().stage != PRETRAIN)):
        stored = folder.pretrain()
        return already_finished(stored, stored, given, execution, request)
    state = load_state(store, PRETRAIN)
    require_same(state, given, execution)
    second = checked_tables(request.config).get("distill")
    if request.config is not None and second != state.options_file.get("distill"):
        raise UsageError(
            f"--config {request.config}: its [distill] is not that with which the training began; leave it out, and "
            f"give it to distill"
        )
    execution = execution.resumed_from(state)
    settings = begun_config(store, state, PretrainConfig)
    name, named = request.data, named_data(request.config)
    if state.data.kind == "folder":
        name = name or named
    elif name is None and named not in (None, state.data.name):
        raise UsageError(
            f"--config {request.config}: its data is {named}, and the training began on {state.data.name}; take it "
            f"out, or start over with --force"
        )
    with execution.group.local_main_first():
        data = recorded_data(state, find_folder(folder, state, name), request.data_root, settings.image_size)
    return Job(
        PRETRAIN,
        folder,
        data,
        base_records(data),
        settings,
        execution,
        recipe=state.recipe,
        options_file=state.options_file,
        weights=state.weights,
        init_sha256=state.init_sha256,
        state=state,
    )


def _as_recorded(given: dict[str, Any]) -> dict[str, Any]:
    """Name backbone, weights and files among the options as a record does."""
    given = {**given, **{name: Path(given[name]).name for name in LISTS if name in given}}
    if "backbone" in given:
        found = BACKBONES[given["backbone"]].recorded
        if found not in (None, given["backbone"]) and given.get("init") == IMAGENET:
            given = {**given, "init": given["backbone"].removeprefix(TIMM)}
        given = {**given, "backbone": found or given["backbone"]}
    return {**given, "init": without_path(str(given["init"]))} if "init" in given else given


def begin_network(job: Job[PretrainConfig]) -> Network:
    """Build the network of stage 1 with the weights that it begins from.

    Raises:
        M2sdError: see `initialise`; or there is one base class only.
    """
    data, config = job.data, job.config
    if data.base < 2:
        raise DataError(f"{data.name}: {data.base} base class; at least two are needed, a folder each")
    network = build_network(config, data.base, data.transform.crop)
    if job.init not in (None, NO_INIT):
        assert job.init is not None
        with job.execution.group.local_main_first():
            initialise(network.backbone, config.backbone, job.init)
    return network


def fit_pretrain(job: Job[PretrainConfig]) -> StoredManifest | None:
    """Train stage 1 of a job into its run folder, where it replaces an earlier chain.

    Returns:
        None if the time limit ended it.

    Raises:
        M2sdError: see `fit` and `initialise`.
    """
    began = time.monotonic()
    data, config, execution, run = job.data, job.config, job.execution, job.run
    group = execution.group
    if config.closeness_weight and group.size > 1:
        raise UsageError(
            f"--closeness-weight {config.closeness_weight:g} is of all pairs of a batch, which {group.size} processes "
            f"share; train with one process, or without it"
        )
    with deterministic_algorithms(execution.deterministic):
        network = begin_network(job)
        if job.init not in (None, NO_INIT):
            assert job.init is not None
            with group.local_main_first():
                record, sha256 = weights_record(config.backbone, job.init), file_digest(job.init)
                job = replace(job, weights=record, init_sha256=sha256)
        objective = pretrain_objective(network, config)
        fitted = fit(job, network, objective) if config.epochs else Fitted(config)
        if fitted is None:
            return None
        # The loss of the last step is that of the weights before it: check the weights after it.
        for pixels, _ in data.train.batches(data.transform, CHECKED_IMAGES, slice(CHECKED_IMAGES)):
            require_finite(embed(network.backbone.eval(), pixels, data.transform))
    if not group.is_main:
        group.barrier()
        return run.pretrain()
    checkpoint = PretrainCheckpoint(network.backbone, network.class_weights.weight)
    stored = run.write_manifest(
        PRETRAIN,
        Manifest(
            kind="pretrain",
            checkpoint=run.write_checkpoint(PRETRAIN, checkpoint.tensors()),
            classes=job.classes,
            data=data_record(data),
            backbone=BackboneRecord(
                name=config.backbone, width=network.backbone.width, similarity=config.similarity, scale=config.scale
            ),
            transform=transform_record(data.transform),
            weights=job.weights,
            init_sha256=job.init_sha256,
            config=asdict(fitted.config),
            seed=config.seed,
            history=fitted.history,
            machines=machines(execution, job.state) if config.epochs else [],
            skipped=skipped_records(data.skipped),
            split=split_record(data),
            files=list_files(data) if data_record(data).kind == "folder" and config.images_per_class is None else {},
            recipe=job.recipe,
            options_file=job.options_file,
            plugins=plugins_record(data_record(data), config.backbone, config=config),
            **provenance(execution, fitted.seconds if config.epochs else time.monotonic() - began),
        ),
    )
    end_log(run, job.stage, len(fitted.history))
    group.barrier()
    return stored
