"""The table of the commands. A module of this folder and an entry here make a command."""

from dataclasses import dataclass
from typing import Any, Final

import typer

from m2sd_cli.cli.groups import Command
from m2sd_cli.registry import load


@dataclass(frozen=True)
class Entry:
    """A command of m2sd. Its module is imported when the command is used."""

    target: str  # "module:function"; instead of a function a Typer app, if there are subcommands
    help: str  # the line in the list of commands
    distributed: bool = False  # whether the processes of torchrun can run it together


COMMANDS: Final = {
    "learn": Entry("m2sd_cli.cli.learn:learn", "Learn a folder of photos in a minute."),
    "pretrain": Entry("m2sd_cli.cli.pretrain:pretrain", "Stage 1: train a network on base classes.", distributed=True),
    "distill": Entry(
        "m2sd_cli.cli.distill:distill", "Stage 2: distil the network, and make session 0.", distributed=True
    ),
    "increment": Entry("m2sd_cli.cli.increment:increment", "Teach new classes from a few photos each: stage 3."),
    "evaluate": Entry("m2sd_cli.cli.evaluate:evaluate", "Measure the accuracy after every session.", distributed=True),
    "predict": Entry("m2sd_cli.cli.predict:predict", "Name the class of each photo."),
    "report": Entry("m2sd_cli.cli.report:report", "Write one page of a model: figures, mistakes, how it was made."),
    "export": Entry("m2sd_cli.cli.export:export", "Write the model as one file for other programs."),
    "features": Entry("m2sd_cli.cli.features:features", "Write the features of images into a file."),
    "sessions": Entry("m2sd_cli.cli.sessions:app", "List, verify, undo sessions; rename and forget classes."),
    "data": Entry("m2sd_cli.cli.data:app", "List, verify, download data sets."),
    "config": Entry("m2sd_cli.cli.config:app", "Show options with their origin, or write a file of them."),
    "recipes": Entry("m2sd_cli.cli.recipes:app", "List and show recipes: options that ship with m2sd."),
    "simulate": Entry("m2sd_cli.cli.simulate:simulate", "Compare classifiers without test images."),
    "study": Entry("m2sd_cli.cli.study:study", "Put runs of several seeds into one table."),
    "ablation": Entry("m2sd_cli.cli.ablation:ablation", "Measure the worth of each part of the method."),
    "doctor": Entry("m2sd_cli.cli.doctor:doctor", "Tell what works on this machine, and why not."),
    "bench": Entry("m2sd_cli.cli.bench:bench", "Measure the speed of this machine."),
    "demo": Entry("m2sd_cli.cli.demo:demo", "See the whole life of a model in a few minutes."),
}


def build_command(name: str) -> Any:
    """Import the module of a command, and build what Typer runs."""
    target = load(COMMANDS[name].target)
    if isinstance(target, typer.Typer):
        return typer.main.get_group(target)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, cls=Command)(target)
    return typer.main.get_command(single)
