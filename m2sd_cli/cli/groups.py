"""Commands that convert nothing for a help page or a completion, and whose texts are fit for a terminal."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from m2sd_cli.cli.usage_errors import in_one_line, metavar, refuse_command, refuse_rest, refuse_value
from m2sd_cli.errors import DataError, ImageError, RunError, UsageError
from m2sd_cli.paths import expand


class Command(TyperCommand):
    """A command that spares conversions, and shows its examples line by line."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.short_help = re.split(r"(?<=\.)\s", self.help or "")[0]  # which a list of commands has uncut
        self.help = _unwrapped(self.help)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        spare_conversions(self, ctx)
        _refuse_empty(args)
        ctx.allow_extra_args = True
        with in_one_line(ctx, [*args]):
            rest = super().parse_args(ctx, args)
        refuse_rest(ctx)
        ctx.params = {name: _expanded(name, value) for name, value in ctx.params.items()}
        return rest

    def invoke(self, ctx: Any) -> Any:
        """See click. Where a command may leave out an image that cannot be read, its refusal names the way."""
        try:
            return super().invoke(ctx)
        except ImageError as error:
            if ctx.params.get("skip_bad") is not False:
                raise
            raise DataError(f"{error}; --skip-bad leaves it out") from error


class Group(TyperGroup):
    """A group of commands that spares conversions, and to which Ctrl-C at a question is Ctrl-C, and no answer is no."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.help = _unwrapped(self.help)

    def invoke(self, ctx: Any) -> Any:
        """See click."""
        try:
            with in_one_line(ctx, []):  # where there is no command
                return super().invoke(ctx)
        except typer.Abort as abort:
            if isinstance(abort.__context__, KeyboardInterrupt):
                typer.echo(err=True)  # the question has left its line open
                raise KeyboardInterrupt from None
            typer.echo(err=True)
            raise RunError("nothing removed: nobody answered the question; --yes agrees") from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        spare_conversions(self, ctx)
        if not args:  # for which Typer may raise the help page
            return super().parse_args(ctx, args)
        with in_one_line(ctx, [*args]):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click.

        Raises:
            UsageError: there is no such command.
        """
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            refuse_command(args[0], ctx)
        return super().resolve_command(ctx, args)


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuse an empty argument: it would stand for the current folder, and is an unset shell variable.

    Raises:
        UsageError: there is one.
    """
    for before, arg in zip(["", *args], args, strict=False):
        if not arg or (arg.startswith("--") and arg.endswith("=")):
            option = arg or (before if before.startswith("-") else "''")
            raise UsageError(f"{option}: an empty argument; is a shell variable not set?")


def _expanded(name: str, value: Any) -> Any:
    """Return the value of a parameter with its ~ expanded, which a shell leaves behind `=` and in quotes."""
    if isinstance(value, list | tuple):
        return type(value)(_expanded(name, each) for each in value)
    if isinstance(value, str | Path) and str(value).startswith("~"):
        return type(value)(expand(value, "--" + name.replace("_", "-")))
    return value


def _unwrapped(text: str | None) -> str | None:
    """Mark the examples of a help page so that click keeps their lines."""
    return text and re.sub(r"^(?=Examples?:$)", "\b\n", text, flags=re.MULTILINE)


def spare_conversions(command: TyperCommand | TyperGroup, ctx: Any) -> None:
    """Leave values that were not given, and the values of a completion, as they are.

    Typer would import pydantic to convert them, which takes longer than all the rest of a help page or a completion.
    """
    for parameter in command.get_params(ctx):
        vars(parameter).setdefault("process_value", _Sparing(parameter))


def _missing(parameter: Any, ctx: Any) -> str:
    """Say which argument or option a command cannot do without, and its line of help."""
    option = parameter.param_type_name == "option"
    name = parameter.opts[0] if option else metavar(parameter)
    command = ctx.command_path
    return f"{command.partition(' ')[2]} needs {name} ({parameter.help.rstrip('.')}); '{command} -h' shows examples"


class _Sparing:
    """The replacement for the method `process_value` of a parameter."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter
        self._process = parameter.process_value

    def __call__(self, ctx: Any, value: Any) -> Any:
        if ctx.resilient_parsing:
            return value
        parameter = self._parameter
        if value is None and getattr(parameter, "is_flag", False) and not parameter.expose_value:
            value = False  # --help and its like, whose callbacks take either for no
        if parameter.required and (value is None or value == ()):
            raise UsageError(_missing(parameter, ctx))
        if value is None and parameter.nargs == 1 and not (parameter.required or parameter.callback):
            return None
        try:
            return self._process(ctx, value)
        except typer.BadParameter as error:
            refuse_value(parameter, value, error.message)
