"""Stage 2, paper sections 3.2 and 3.3: self-distillation on virtual classes, then session 0."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from m2sd_cli import progress
from m2sd_cli.api.base_session import choose_classifier, fit_distill, require_measured
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
from m2sd_cli.config.files import NO_OPTIONS, OptionsFile
from m2sd_cli.config.merging import DEFAULT_ORIGIN, RECIPE_ORIGIN, Sources, resolve_with_origins
from m2sd_cli.config.option import shown
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.paths import expand
from m2sd_cli.recipes import find_recipe
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import ClassRecord
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.execution import Execution, executing
from m2sd_cli.training.job import Job
from m2sd_cli.training.records import (
    base_records,
    classes_digest,
    name_changes,
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
    with progress.stage("distill"), executing(replace(asked, force=force), folder, "distill") as execution:
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
    choose_classifier(settings, folder, parent)
    data = _open_images(folder, request, parent, execution)
    # The cost of a recipe is for the images that it holds out. With --held-out 0 the margin is one by distance instead.
    if origins["base_cost"] not in (DEFAULT_ORIGIN, RECIPE_ORIGIN):
        require_measured(settings.base_cost, data.held_out is not None)
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
