"""The Typer app, whose commands are those of the table COMMANDS."""

import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from m2sd_cli import __version__
from m2sd_cli.cli import errors
from m2sd_cli.cli.commands import COMMANDS, build_command
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import UsageError
from m2sd_cli.paths import require_current_folder
from m2sd_cli.plugin_files import OPTION, load_plugin

INSTALL: Final = "--install-completion"  # Typer's option


class Commands(Group):
    """The group of all commands. It lists and completes them by their entries, and builds the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: Command(name, help=entry.help) for name, entry in COMMANDS.items()}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `help COMMAND` for `COMMAND --help`.

        Raises:
            UsageError: completion is to be installed, which changes files of the home folder, and nobody sees it.
        """
        at_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
        if INSTALL in takewhile(lambda arg: arg.startswith("-"), args) and not at_terminal:
            raise UsageError(f"{INSTALL}: it changes your shell's start-up file; type it at a terminal")
        rest = super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)
        # Before the command is built, whose help and checks know what a file registers. A completion runs no file.
        for file in () if ctx.resilient_parsing else ctx.params.get("plugin") or ():
            load_plugin(file)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and build_command(listed.name), rest


app = typer.Typer(
    name="m2sd",
    cls=Commands,
    help="Teach an image classifier new classes from a few photos each, without forgetting.\n\n"
    "Your own photos: m2sd learn PHOTOS, then increment --shots NEW, then predict MORE. Benchmarks: m2sd pretrain, "
    "then distill, then increment once a session, then evaluate. To see it all: m2sd demo\n\n"
    "All that a model has been taught is in one folder, its run: --run, by default ./m2sd-run.\n\n"
    "Help on a command: m2sd help COMMAND",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback of expected errors, too.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback answers)
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    plugin: Annotated[  # noqa: ARG001 (the group loads them)
        list[Path] | None,
        typer.Option(
            OPTION,
            metavar="FILE.py",
            help="Python file to run first, which registers a backbone, classifier, data set or other part.",
            show_default=False,
            readable=False,
        ),
    ] = None,
) -> None:
    """Take the options that stand before every command."""
    errors.debugging = debug
    name = context.invoked_subcommand
    if is_distributed() and name is not None and not COMMANDS[name].distributed:
        raise UsageError(f"m2sd {name}: it runs as one process; begin it without torchrun")


def main() -> None:
    """Run m2sd."""
    with errors.reported():
        require_current_folder()
        app(prog_name="m2sd")
