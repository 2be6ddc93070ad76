"""The Typer app: one module a subcommand."""

from typing import Annotated

import typer

from m2sd_cli import __version__
from m2sd_cli.cli import (
    ablation,
    bench,
    data,
    demo,
    distill,
    errors,
    evaluate,
    export,
    increment,
    predict,
    pretrain,
    recipes,
    sessions,
    simulate,
)
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.distributed.torchrun import is_distributed
from m2sd_cli.errors import UsageError

SHARED = ("pretrain", "distill", "evaluate")  # what several processes can do together

app = typer.Typer(
    name="m2sd",
    cls=Group,
    help="Teach an image classifier new classes from a handful of pictures each, without forgetting.\n\n"
    "Stages: pretrain, distill, then increment once a session. See it all: m2sd demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback for expected errors too.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    errors.debugging = debug
    if is_distributed() and context.invoked_subcommand not in SHARED:
        raise UsageError(f"m2sd {context.invoked_subcommand}: it runs as one process; begin it without torchrun")


app.command("pretrain", cls=Command)(pretrain.pretrain)
app.command("distill", cls=Command)(distill.distill)
app.command("increment", cls=Command)(increment.increment)
app.command("evaluate", cls=Command)(evaluate.evaluate)
app.command("predict", cls=Command)(predict.predict)
app.command("export", cls=Command)(export.export)
app.add_typer(sessions.app, name="sessions")
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.command("bench", cls=Command)(bench.bench)
app.command("simulate", cls=Command)(simulate.simulate)
app.command("ablation", cls=Command)(ablation.ablation)
app.command("demo", cls=Command)(demo.demo)


def main() -> None:
    """The entry point `m2sd`."""
    with errors.reported():
        app(prog_name="m2sd")
