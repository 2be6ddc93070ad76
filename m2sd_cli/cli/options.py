"""The options that several commands share, each written once."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from m2sd_cli.config.option import flag
from m2sd_cli.data.catalogue import all_infos
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import find_recipe, recipe_names
from m2sd_cli.registry import CLASSIFIERS, Registry

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


def named(table: Registry[Any], help: str = "{choices}.", show_default: str | bool = False) -> Any:
    """Make the option that chooses entries of a table by name.

    A wrong name is refused before torch is imported, a begun one completed.

    Args:
        table: the table, which knows its option.
        help: the line of help; `{choices}` stands for the names.
        show_default: words on the default, for the help page.
    """

    def check(given: str | list[str] | None) -> str | list[str] | None:
        for name in [given] if isinstance(given, str) else given or []:
            table[name]
        return given

    return typer.Option(
        table.option,
        help=help.replace("{choices}", table.listed()),
        show_default=show_default,
        callback=check,
        autocompletion=table.complete,
    )


def output_file(option: str, help: str) -> Any:
    """Make an option of a file or folder to write."""
    return typer.Option(option, help=help, show_default=False, readable=False)


Run = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Run folder: $M2SD_RUN, else ./m2sd-run.",
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
        help="Where built-in data sets lie: $M2SD_DATA, else the cache folder.",
        show_default=False,
        readable=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16; auto: bf16 where it pays.")]
ExactPrecision = Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16; auto: fp32.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Options that ship with m2sd; see 'm2sd recipes'.",
        show_default=False,
        callback=_check_recipe,
        autocompletion=recipe_names,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML: data, [pretrain] and [distill].", show_default=False, readable=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")]
Requeue = Annotated[
    bool,
    typer.Option(
        "--requeue",
        help="Begin, go on, or say that it has finished: a job that a cluster repeats until exit code 0. Exit code 5 "
        "if a signal has stopped it in time.",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Start over. A finished stage is replaced at the end, with the sessions taught after it; an interrupted "
        "one when first saved.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Tell what would be done and how long it would take, by the time of a few steps; write nothing.",
    ),
]
StopAfter = Annotated[
    str | None,
    typer.Option("--stop-after", help="Save and stop after 90s, 9m or 2h, with exit code 5.", show_default=False),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        help="Choose as many epochs as take 90s, 30m or 2h, by the time of the first steps.",
        show_default=False,
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out photos that cannot be read, and name them.")]
IgnoreNew = Annotated[
    bool,
    typer.Option("--ignore-new", help="Leave out photos that came into the folder after pretrain; needs all others."),
]
SaveEvery = Annotated[
    str, typer.Option("--save-every", help="Save the resumable state every 90s, 5m or 2h; 0s: after every step.")
]
TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", help="Folder for curves that TensorBoard shows.", show_default=False, readable=False),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="Ask for exact repetition on CUDA too, by slower algorithms; a CPU always does."
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network first, in minutes; 'm2sd bench --compile' tells if it pays."),
]
FolderOfPretrain = Annotated[
    str | None,
    typer.Option("--data", help="The folder of pretrain, if it is not where it was.", show_default=False),
]
LabelledFolder = Annotated[
    Path | None,
    typer.Option("--test", help="Your own labelled photos, DIR/CLASS/*.jpg.", show_default=False, readable=False),
]
ShotFolders = Annotated[
    list[str] | None,
    typer.Option("--shots", metavar="N=DIR", help="The folder that taught session N.", show_default=False),
]
Classifier = Annotated[str | None, named(CLASSIFIERS, "{choices}; what the session names by default.")]
BaseCost = Annotated[
    float | None,
    typer.Option(
        "--base-cost",
        metavar="POINTS",
        help="debiased: accuracy of base classes that each new class may cost; the base session's by default.",
        show_default=False,
    ),
]
SessionChoice = Annotated[
    int | None,
    typer.Option(
        "--session",
        help="Session to take; the newest by default.",
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
