"""The part of beginning and resuming that stages 1 and 2 share: options, images, finished trainings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from m2sd_cli import progress
from m2sd_cli.api.recorded_data import recorded_data
from m2sd_cli.config.files import read_options
from m2sd_cli.config.merging import given_options
from m2sd_cli.config.option import find_option, flag, options_of
from m2sd_cli.config.protocol import ProtocolOptions
from m2sd_cli.config.signatures import insert_parameters, takes_options
from m2sd_cli.config.stages import Config, DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import DataSetInfo, get_info
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.protocol import Protocol, choose_protocol
from m2sd_cli.errors import InterruptedCommandError, StoppedError, UsageError
from m2sd_cli.inference.device import choose_device
from m2sd_cli.paths import expand_given, text_given
from m2sd_cli.recipes import NOTHING, Recipe
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.runs.places import remember_data
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.epochs import EpochFigures, check_tensorboard
from m2sd_cli.training.execution import SAVE_EVERY, Execution
from m2sd_cli.training.job import Job
from m2sd_cli.training.records import base_records, classes_digest, data_record, name_changes
from m2sd_cli.training.resuming import require_same

Function = TypeVar("Function", bound=Callable[..., Any])
# The arguments of both stages that their functions hand on, with annotation and default.
SOURCES: dict[str, tuple[Any, Any]] = {
    "data_root": (Path | str | None, None),
    "recipe": (str | None, None),
    "config": (Path | str | None, None),
}
CONDITIONS: dict[str, tuple[Any, Any]] = {
    "device": (str, "auto"),
    "precision": (str, "auto"),
    "stop_after": (float | None, None),
    "time_budget": (float | None, None),
    "save_every": (float, SAVE_EVERY),
    "compile": (bool, False),
    "deterministic": (bool, False),
    "on_epoch": (Callable[[EpochFigures], None] | None, None),
    "tensorboard": (Path | str | None, None),
}


def takes_arguments(model: type[PretrainConfig | DistillConfig]) -> Callable[[Function], Function]:
    """Decorate a function of `**arguments` so that its signature lists those that `take_arguments` takes."""

    def decorate(function: Function) -> Function:
        insert_parameters(function, SOURCES | CONDITIONS)
        return takes_options(model)(function)

    return decorate


@dataclass(frozen=True)
class Request:
    """The options with which a stage is begun or resumed."""

    data: str | None  # a built-in data set's name or a folder
    data_root: Path | None
    recipe: str | None
    config: Path | None
    options: Mapping[str, Any]
    ignore_new: bool = False  # leave out images that stage 1 did not have

    def given(self, model: type[Config]) -> dict[str, Any]:
        """Return the options that a training must have begun with to be resumed."""
        known = options_of(model)
        # A whole number may stand for a text; as a text it is what the training began with.
        given = {
            name: known[name].check(value) if type(value) is int and name in known else value
            for name, value in given_options(model, self.config, self.options).items()
        }
        return given if self.recipe is None else given | {"recipe": self.recipe}


def take_arguments(data: Path | str | None, arguments: Mapping[str, Any]) -> tuple[Request, Execution]:
    """Make a request and the conditions of arguments, in which texts and paths may stand for each other.

    Args:
        data: a built-in data set's name or a folder.
        arguments: those of SOURCES and CONDITIONS; the others are options of the stage.

    Raises:
        UsageError: a path is empty, a condition makes no sense, or no stage has an option of a name.
        M2sdError: the folder for TensorBoard or its package cannot be used.
    """
    given = {name: default for name, (_, default) in (SOURCES | CONDITIONS).items()} | dict(arguments)
    root, file = expand_given(given["data_root"], "--data-root"), expand_given(given["config"], "--config")
    curves = expand_given(given["tensorboard"], "--tensorboard")
    check_tensorboard(curves)
    conditions = {name: given[name] for name in CONDITIONS}
    asked = Execution(**conditions | {"device": choose_device(given["device"]), "tensorboard": curves})
    options = {name: value for name, value in arguments.items() if name not in SOURCES | CONDITIONS}
    known = options_of(PretrainConfig) | options_of(DistillConfig)
    for name in options:
        find_option(known, name)
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return Request(text_given(data), root, given["recipe"], file, texts), asked


def named_data(config: Path | None, recipe: Recipe = NOTHING) -> str | None:
    """Return the data set that a file of options names, or else a recipe."""
    named = None if config is None else read_options(config).data
    return named or recipe.options.data


def chosen_protocol(info: DataSetInfo | None, settings: PretrainConfig) -> Protocol | None:
    """Return the protocol that options choose for a built-in data set; None for the official one, and for a folder.

    Raises:
        UsageError: the data set does not allow it, or a folder is given one.
    """
    asked = {name: getattr(settings, name) for name in options_of(ProtocolOptions)}
    if info is not None:
        return choose_protocol(info, **asked)
    given = next((name for name, value in asked.items() if value is not None), None)
    if given is not None:
        raise UsageError(
            f"{flag(given)} is for built-in data sets; all classes of a folder are base classes; leave it out"
        )
    return None


def refuse_shared_folder(run: RunFolder, data: str) -> None:
    """Refuse a run folder that would keep its own files among the images.

    Raises:
        UsageError: it is the folder of images, or one whose temporary files those would be taken for.
    """
    images, path = Path(data).resolve(), run.path.resolve()
    inside = images == path or any(map(images.is_relative_to, (path / "training", path / "tuning", path / "incoming")))
    if inside and get_info(data) is None:
        raise UsageError(f"--run {run.path}: the images of {data} are in it; name another folder for the run")


def remember_folder(run: RunFolder, data: DataSet, first: Manifest | None = None) -> None:
    """Remember where the images of a run lie on this machine, if they are a folder's.

    Args:
        run: the run.
        data: its images.
        first: the manifest of stage 1, whose name the folder had then; None if stage 1 is being made.
    """
    record = data_record(data)
    if record.kind == "folder":
        remember_data(run.path, first.data.name if first else record.name, data.location)


@contextmanager
def remembering_folder(job: Job[Any]) -> Iterator[None]:
    """Remember the folder of a training that has finished or was stopped and saved; a refused one changes no run."""
    first = None if job.parent is None else job.parent.manifest
    try:
        yield
    except (InterruptedCommandError, StoppedError):
        if job.execution.group.is_main and StateStore(job.run).exists():
            remember_folder(job.run, job.data, first)
        raise
    if job.execution.group.is_main:
        remember_folder(job.run, job.data, first)


def require_one_beginning(resume: bool, requeue: bool, force: bool) -> None:
    """Refuse --resume or --requeue together with --force.

    Raises:
        UsageError: they were given.
    """
    for option, given in (("--resume", resume), ("--requeue", requeue)):
        if given and force:
            raise UsageError(f"{option} and --force: choose one, to go on or to start over")


def within_budget(settings: Config, options: Mapping[str, Any]) -> Config:
    """Return the configuration of a training whose epochs a budget of time will decide.

    Raises:
        UsageError: the epochs were given, or the schedule tells of fixed ones.
    """
    if options.get("epochs") is not None:
        raise UsageError("--time-budget and --epochs: choose one")
    if settings.milestones is not None:
        raise UsageError("--time-budget and --milestones: leave the milestones out, which are 60 % and 80 % then")
    return replace(settings, epochs=max(1, settings.epochs))


def already_finished(
    stored: StoredManifest, first: StoredManifest, given: Mapping[str, Any], execution: Execution, request: Request
) -> StoredManifest:
    """Return the manifest of a finished training that was to be resumed.

    Args:
        stored: the manifest.
        first: the manifest of stage 1.
        given: the options that were given.
        execution: the conditions.
        request: the request.

    Raises:
        UsageError: it has finished under other options or on other images.
    """
    require_same(stored.manifest, given, execution)
    if request.data is not None:
        with execution.group.local_main_first():
            data_set = recorded_data(first.manifest, request.data, request.data_root, first.manifest.transform.crop)
        classes = base_records(data_set)
        if classes_digest(classes) != classes_digest(stored.manifest.classes):
            raise UsageError(
                f"--data {request.data}: it has finished on other images; --force starts over: "
                f"{name_changes(classes, stored.manifest.classes)}"
            )
    progress.say(f"{stored.record.file} is there: it has finished before, and nothing is left to do")
    return stored
