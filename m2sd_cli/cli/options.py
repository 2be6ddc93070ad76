"""The options that several commands share, each written once."""

import re
from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.errors import UsageError
from m2sd_cli.method import HEADS

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
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Options that ship with m2sd; see 'm2sd recipes'.", show_default=False)
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML: data, [pretrain] and [distill].", show_default=False, readable=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Start over. A finished stage is replaced at the end, an interrupted one when first saved."
    ),
]
StopAfter = Annotated[
    str | None,
    typer.Option("--stop-after", help="Save and stop after 90s, 9m or 2h; go on with --resume.", show_default=False),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read, and name them.")]
SaveEvery = Annotated[
    str, typer.Option("--save-every", help="Save the resumable state every 90s, 5m or 2h; 0s: after every step.")
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
Epochs = Annotated[int | None, typer.Option("--epochs", help="Epochs of this stage.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images a step.", show_default=False)]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", help="At the start; a cosine takes it to 0.", show_default=False)
]
Momentum = Annotated[float | None, typer.Option("--momentum", help="Nesterov momentum.", show_default="0.9")]
WeightDecay = Annotated[float | None, typer.Option("--weight-decay", help="L2 penalty.", show_default="0.0005")]
AutoAugment = Annotated[
    str | None,
    typer.Option(
        "--auto-augment",
        help="AutoAugment's policy for training images: none, cifar10 or imagenet.",
        show_default="none",
    ),
]
Colour = Annotated[
    float | None,
    typer.Option(
        "--colour", help="Vary brightness, contrast and saturation by up to this share, 0 to 1.", show_default="0"
    ),
]
Cutout = Annotated[
    float | None,
    typer.Option(
        "--cutout", help="A hole in each training image, its side this share of the image's.", show_default="0"
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Same seed: same result, on the same CPU with as many threads.", show_default=False),
]
Classifier = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help=f"{', '.join(HEADS[:-1])} or {HEADS[-1]}; what the session names by default.",
        show_default=False,
    ),
]
SessionChoice = Annotated[
    int | None, typer.Option("--session", help="Session to take; the newest by default.", show_default=False)
]

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(option: str, duration: str) -> float:
    """`90s`, `9m`, `1.5h` in seconds.

    Raises:
        UsageError: it is none of these; the message names the option.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration)
    if match is None:
        raise UsageError(f"{option} {duration}: write 90s, 9m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def check_classifier(name: str | None) -> None:
    """Before torch is imported.

    Raises:
        UsageError: there is no classifier of that name.
    """
    if name is not None and name not in HEADS:
        raise UsageError(f"--classifier {name}: choose {', '.join(HEADS)}")


def refuse_before_subcommand(context: typer.Context) -> None:
    """An option of a group that stands before a subcommand would be dropped in silence.

    Raises:
        UsageError: there is one.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option}: write it after '{context.info_name} {context.invoked_subcommand}'")
