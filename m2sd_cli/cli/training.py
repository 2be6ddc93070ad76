"""The options that both training commands share, and the lines that they print at the end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import as_text, document, duration, note
from m2sd_cli.config.merging import stage_defaults
from m2sd_cli.config.option import TrainingOption, as_word, flag, options_of
from m2sd_cli.config.signatures import insert_parameters
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS
from m2sd_cli.errors import SignalledTrainingError, StoppedError
from m2sd_cli.registry import one_of

if TYPE_CHECKING:
    from m2sd_cli.runs.folder import RunFolder
    from m2sd_cli.runs.reader import StoredManifest

Command = TypeVar("Command", bound=Callable[..., None])
# The options of every training that are not part of its configuration and their defaults; first the sources of others.
FILES: dict[str, tuple[Any, Any]] = {
    "recipe": (options.RecipeName, None),
    "config": (options.ConfigFile, None),
}
EXECUTION: dict[str, tuple[Any, Any]] = {
    "data_root": (options.DataRoot, None),
    "device": (options.Device, "auto"),
    "precision": (options.Precision, "auto"),
    "deterministic": (options.Deterministic, False),
    "compile": (options.Compile, False),
    "resume": (options.Resume, False),
    "requeue": (options.Requeue, False),
    "stop_after": (options.StopAfter, None),
    "time_budget": (options.TimeBudget, None),
    "save_every": (options.SaveEvery, "5m"),
    "force": (options.Force, False),
    "tensorboard": (options.TensorBoard, None),
    "yes": (options.Yes, False),
    "dry_run": (options.DryRun, False),
}


def training_options(model: type[PretrainConfig | DistillConfig]) -> Callable[[Command], Command]:
    """Decorate a command of `**arguments` so that it has the options of a configuration and of every training.

    They stand between the positional and the keyword-only parameters of the command.
    """
    configured = options_of(model).values()
    parameters = {option.name: (option_annotation(model, option), None) for option in configured}
    aliases = [alias for option in configured for alias in option.option.aliases]
    parameters |= {alias: (Annotated[str | None, typer.Option(flag(alias), hidden=True)], None) for alias in aliases}

    def decorate(command: Command) -> Command:
        insert_parameters(command, FILES | parameters | EXECUTION, first=True)
        return command

    return decorate


def option_annotation(model: type[PretrainConfig | DistillConfig], option: TrainingOption) -> Any:
    """Return the annotation from which Typer makes the option; what is not given is None."""
    kind = str if get_args(option.type) else option.type
    table = option.option.table

    def complete(incomplete: str) -> list[str]:
        if table is not None:
            return table.complete(incomplete)
        return [choice for choice in option.choices if choice.startswith(incomplete)]

    return Annotated[
        kind | None,
        typer.Option(
            flag(option.name),
            help=option.help,
            show_default=usual_words(model, option),
            autocompletion=complete,
        ),
    ]


def usual_words(model: type[PretrainConfig | DistillConfig], option: TrainingOption) -> str:
    """Return the default of an option as the help page has it: of folders first, then of data sets with another."""

    def shown(defaults: dict[str, Any]) -> str:
        own = stage_defaults(model, defaults)
        return as_word(own[option.name]) if option.name in own else option.shown_default

    usual = shown(FOLDER_DEFAULTS)
    others: dict[str, list[str]] = {}
    for info in DATA_SETS.entries.values():
        if info.simulates is None:
            others.setdefault(shown(info.defaults), []).append(info.name)
    others.pop(usual, None)
    return "; ".join([usual, *(f"{value} for {one_of(names)}" for value, names in others.items())])


def training_arguments(model: type[PretrainConfig | DistillConfig], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a training function, of which a wrong one is refused before torch is imported.

    Args:
        model: the configuration of the stage.
        given: the options that `training_options` has added to the command.

    Raises:
        UsageError: a value does not fit.
    """
    for option in options_of(model).values():
        for alias in option.option.aliases:
            value = given.pop(alias)
            given[option.name] = value if given[option.name] is None else given[option.name]
        if given[option.name] is not None:
            option.check(given[option.name])
    budget: str | None = given["time_budget"]
    return given | {
        "stop_after": options.time_limit(given["stop_after"]),
        "time_budget": None if budget is None else options.seconds("--time-budget", budget),
        "save_every": options.seconds("--save-every", given["save_every"]),
    }


@contextmanager
def stopped_in_time(stage: str, requeue: bool) -> Iterator[None]:
    """Take the signal of a cluster for the end of a job that will be repeated, where --requeue says so.

    Raises:
        StoppedError: in place of the error of the signal.
    """
    try:
        yield
    except SignalledTrainingError:
        if not requeue:
            raise
        raise StoppedError(f"{stage}: stopped by a signal; the same command goes on") from None


def report_training(
    stage: str,
    stored: "StoredManifest | None",
    run: "RunFolder",
    next_steps: Sequence[str],
    json: bool,
    quiet: bool,
    force: bool,
) -> None:
    """Print the outcome of a training, and the commands to type next.

    Args:
        stage: the command.
        stored: the manifest; None if the time limit ended the training.
        run: the run folder.
        next_steps: commands that may follow.
        json: prints a JSON document instead.
        quiet: leaves the hints out.
        force: the command started over.

    Raises:
        StoppedError: the time limit ended the training.
    """
    if stored is None:
        if json:
            document({"stage": stage, "finished": False, "run": as_text(run.path)})
        without = ", but without --force" if force else ""
        raise StoppedError(
            f"{stage}: time is up; saved. Go on with the same command and --resume, or with --requeue{without}"
        )
    manifest = stored.manifest
    last = manifest.history[-1] if manifest.history else None
    if json:
        document(
            {
                "stage": stage,
                "finished": True,
                "run": as_text(run.path),
                "manifest": stored.record.file,
                "classes": len(manifest.classes),
                "epochs": len(manifest.history),
                "loss": last.loss if last else None,
                "seconds": manifest.seconds,
                "device": manifest.device,
                "precision": manifest.precision,
            }
        )
        return
    epochs = len(manifest.history)
    trained = f"{epochs} epoch{'s' if epochs > 1 else ''} in {duration(manifest.seconds)}" if last else "no training"
    note(
        f"{stage}: {len(manifest.classes)} base classes of {manifest.data.name}, {trained}; "
        f"{run.path / stored.record.file}",
        quiet,
    )
    if next_steps:
        note(f"next: {', or '.join(next_steps)}", quiet)
