"""The options that several commands share, each written once."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from m2sd_cli.config.option import flag
from m2sd_cli.data.catalogue import all_infos
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import find_recipe, recipe_names
from m2sd_cli.registry import Registry
from m2sd_cli.tables import CLASSIFIERS

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(option: str, duration: str) -> float:
    """Return `90s`, `9m` or `1.5h` in seconds.

    Raises:
        UsageError: it is none of these; the message names the option.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration)
    if match is None:
        raise UsageError(f"{option} {duration}: write 90s, 9m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def time_limit(duration: str | None) -> float | None:
    """Return the seconds of --stop-after; None if it was not given."""
    return None if duration is None else seconds("--stop-after", duration)


def complete_sessions(context: typer.Context) -> list[str]:
    """Return the numbers of the sessions in the run folder, for completion."""
    several = context.params.get("runs")
    run = Path(
        context.params.get("run") or (several[0] if several else None) or os.environ.get("M2SD_RUN") or "m2sd-run"
    )
    return [str(int(file.stem.removeprefix("session-"))) for file in sorted(run.glob("session-[0-9]*.json"))]


def complete_data_sets() -> list[str]:
    """Return the names of the data sets, for completion."""
    return list(all_infos())


def _check_recipe(name: str | None) -> str | None:
    find_recipe(name)
    return name


def named(
    table: Registry[Any],
    help: str = "{choices}.",
    show_default: str | bool = False,
    only: Callable[[Any], bool] = lambda _: True,
) -> Any:
    """Make the option that chooses entries of a table by name.

    A wrong name is refused before torch is imported, a begun one completed.

    Args:
        table: the table, which knows its option.
        help: the line of help; `{choices}` stands for the names.
        show_default: words on the default, for the help page.
        only: tells if the help page and a completion name an entry.
    """

    def check(given: str | list[str] | None) -> str | list[str] | None:
        for name in [given] if isinstance(given, str) else given or []:
            table[name]
        return given

    def complete(incomplete: str) -> list[str]:
        return table.complete(incomplete, only)

    return typer.Option(
        table.option,
        help=help.replace("{choices}", table.listed(only)),
        show_default=show_default,
        callback=check,
        autocompletion=complete,
    )


def output_file(option: str, help: str) -> Any:
    """Make an option of a file or folder to write."""
    return typer.Option(option, help=help, show_default=False, readable=False)


Run = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Run folder, which holds the model: $M2SD_RUN, else ./m2sd-run.",
        show_default=False,
        envvar="M2SD_RUN",
        show_envvar=False,
        readable=False,  # whether it can be read the command itself tells, in one line
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        help="Folder of the built-in data sets: $M2SD_DATA, else the cache folder.",
        show_default=False,
        readable=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="Device: auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    str, typer.Option("--precision", help="Precision: auto, fp32 or bf16; auto is bf16 where it is faster.")
]
ExactPrecision = Annotated[str, typer.Option("--precision", help="Precision: auto, fp32 or bf16; auto is fp32.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result and errors only.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is removed.")]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Recipe: options that ship with m2sd, see 'm2sd recipes'.",
        show_default=False,
        callback=_check_recipe,
        autocompletion=recipe_names,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file of options: data, [pretrain] and [distill]; 'm2sd config init' writes one.",
        show_default=False,
        readable=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")]
Requeue = Annotated[
    bool,
    typer.Option(
        "--requeue",
        help="For a job that a cluster repeats until exit code 0: begin, continue, or say that it has finished. A "
        "signal of the cluster saves and gives exit code 5.",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Start over. At the end the new stage replaces the old one and all sessions after it; an interrupted "
        "training is replaced at the first save.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Time a few steps, tell what would be done and how long it would take, and write nothing.",
    ),
]
StopAfter = Annotated[
    str | None,
    typer.Option(
        "--stop-after",
        help="Save and stop after this time, such as 90s, 9m or 2h, with exit code 5.",
        show_default=False,
    ),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        help="Train for about this time, such as 90s, 30m or 2h; the first steps decide the number of epochs.",
        show_default=False,
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out photos that cannot be read, and name them.")]
IgnoreNew = Annotated[
    bool,
    typer.Option(
        "--ignore-new",
        help="Leave out photos that were added to the folder after pretrain; all others have to be there.",
    ),
]
SaveEvery = Annotated[
    str,
    typer.Option(
        "--save-every", help="Time between two saves for --resume, such as 90s, 5m or 2h; 0s saves after every step."
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard", help="Folder to write curves for TensorBoard into.", show_default=False, readable=False
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="Use slower algorithms on CUDA that repeat exactly; a CPU always does."),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network first, which takes minutes; 'm2sd bench --compile' tells if it is faster.",
    ),
]
FolderOfPretrain = Annotated[
    str | None,
    typer.Option("--data", help="The folder of photos that was learned, if it has moved.", show_default=False),
]
LabelledFolder = Annotated[
    Path | None,
    typer.Option(
        "--test",
        help="Your own labelled photos to test on: DIR with DIR/CLASS/*.jpg.",
        show_default=False,
        readable=False,
    ),
]
ShotFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--shots",
        metavar="N=DIR",
        help="The folder of the shots of session N, if it has moved; may be repeated.",
        show_default=False,
    ),
]
Classifier = Annotated[str | None, named(CLASSIFIERS, "Classifier: {choices}; by default the session's own.")]
BaseCost = Annotated[
    float | None,
    typer.Option(
        "--base-cost",
        metavar="POINTS",
        help="Of debiased, quadratic: points of base accuracy one new class alone may take; by default session 0's.",
        show_default=False,
    ),
]
SessionChoice = Annotated[
    int | None,
    typer.Option(
        "--session",
        help="Number of the session to use; by default the newest.",
        show_default=False,
        autocompletion=complete_sessions,
    ),
]


def refuse_before_subcommand(context: typer.Context) -> None:
    """Refuse an option of a group that stands before a subcommand, where it would be dropped in silence.

    Raises:
        UsageError: there is one.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{flag(name)}: write it after '{context.info_name} {context.invoked_subcommand}'")


def shot_folders(words: list[str]) -> dict[int, Path]:
    """Parse `N=DIR` of every session that a folder taught.

    Raises:
        UsageError: a word is not that, or there are two for one session.
    """
    folders: dict[int, Path] = {}
    for word in words:
        number, equals, folder = word.partition("=")
        if not (number.isascii() and number.isdecimal() and equals and folder):
            raise UsageError(f"--shots {word}: write N=DIR, the number of a session and the folder that taught it")
        if int(number) in folders:
            raise UsageError(f"--shots {word}: there is a folder for session {int(number)} already")
        folders[int(number)] = Path(folder)
    return folders
