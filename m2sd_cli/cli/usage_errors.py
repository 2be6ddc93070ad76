"""The one line on a command line that makes no sense: what is wrong in it, and what may have been meant."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from m2sd_cli.config.usual_names import ANSWERS, USUAL_COMMANDS, meant_by, plain, usual_meanings
from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted

OF_A_PLACE: Final = ("--data", "--run")  # options that a word may have been meant for which no option stands before


@contextmanager
def in_one_line(ctx: Any, args: Sequence[str]) -> Iterator[None]:
    """Turn an error of Typer into one of ours.

    Args:
        ctx: the context of the command.
        args: the words after the command.

    Raises:
        UsageError: in place of the error.
    """
    try:
        yield
    except Exception as error:
        message, option = getattr(error, "message", None), getattr(error, "option_name", None)
        if message is None or getattr(error, "exit_code", None) != UsageError.exit_code:
            raise
        if option is None:
            where = f"{_path(ctx)}: " if ctx.parent else ""
            raise UsageError(f"{where}{message.rstrip('.')}; {_help(ctx)}") from None
        if option in _options(ctx):
            wrong = "needs a value" if "requires" in message else "takes no value"
            raise UsageError(f"{_path(ctx)}: {option} {wrong}; {_help(ctx)}") from None
        name = _as_written(option, args)
        raise UsageError(f"{_has_no(ctx)} option {quoted(name)}; {option_meant(name, ctx)}") from None


def refuse_value(parameter: Any, value: object, problem: str) -> NoReturn:
    """Refuse a value of the wrong type.

    Args:
        parameter: of Typer.
        value: as it was written.
        problem: in Typer's words.

    Raises:
        UsageError: always.
    """
    name = parameter.opts[0] if parameter.param_type_name == "option" else metavar(parameter)
    wanted = "a whole number" if "integer" in problem else "a number" if re.search("number|float", problem) else problem
    raise UsageError(f"{name} {quoted(str(value))}: {wanted}") from None


def refuse_rest(ctx: Any) -> None:
    """Refuse the words that belong to no option and no argument of a command.

    Raises:
        UsageError: there is one; the message names the options that may have been meant.
    """
    if not ctx.args or ctx.resilient_parsing:
        return
    word, known = ctx.args[0], _options(ctx)
    taken = _arguments(ctx.command).values()
    number = word.isdecimal()
    places = {each: known[each].name for each in OF_A_PLACE if each in known and not number}
    if taken:
        way = f"it takes {' and '.join(map(metavar, taken))} alone, and a name with spaces needs quotes"
    elif number and "--session" in known:
        way = f"did you mean --session {word}?"
    elif any(ctx.params[name] for name in places.values()):
        way = "a name with spaces needs quotes"
    else:
        meant = [f"{each} {quoted(word)}" for each in places]
        way = f"did you mean {' or '.join(meant)}?" if meant else _help(ctx)
    raise UsageError(f"{_path(ctx)}: no option stands before {quoted(word)!r}; {way}")


def refuse_command(word: str, ctx: Any) -> NoReturn:
    """Refuse a word that is no command of a group.

    Raises:
        UsageError: always; the message names the command that may have been meant.
    """
    meant = meant_by(word, ctx.command.commands, USUAL_COMMANDS)
    if not (meant or ctx.parent):
        groups = {name: getattr(command, "commands", {}) for name, command in _all_commands().items()}
        meant = [f"{name} {word}" for name, commands in groups.items() if word in commands]
    way = f"did you mean '{ctx.command_path} {meant[0]}'?" if meant else _help(ctx)
    raise UsageError(f"{_has_no(ctx)} command {quoted(word)!r}; {way}")


def metavar(argument: Any) -> str:
    """Return the name of an argument in a message."""
    return str(argument.metavar or argument.name.upper())


def _path(ctx: Any) -> str:
    """Return the words of a command without the name of the program, which is left where there are no others."""
    return ctx.command_path.partition(" ")[2] or str(ctx.command_path)


def _has_no(ctx: Any) -> str:
    return f"{_path(ctx)} has no" if ctx.parent else "there is no"


def _help(ctx: Any) -> str:
    return f"see '{ctx.command_path} -h'"


def _arguments(command: Any) -> dict[str, Any]:
    return {each.name: each for each in command.params if each.param_type_name == "argument"}


def _options(ctx: Any, command: Any = None) -> dict[str, Any]:
    """Return the options of a command, or of another one, that its help page shows, by name."""
    found = [each for each in (command or ctx.command).get_params(ctx) if each.param_type_name == "option"]
    return {name: each for each in found if not each.hidden for name in (*each.opts, *each.secondary_opts)}


def _as_written(option: str, args: Sequence[str]) -> str:
    """Return the word in which Typer found an option: `-lr`, of which it names `-l`."""
    if option.startswith("--"):
        return option
    return next((each.partition("=")[0] for each in args if re.match(rf"-\w*{re.escape(option[1:])}", each)), option)


def option_meant(name: str, ctx: Any) -> str:
    """Return the end of the message on an option that a command does not have: the way out."""
    root = ctx.find_root()
    early = _options(root).get(name)
    if early is not None:
        words = [name, early.metavar, _path(ctx)]
        return f"write it before the command, as in '{root.command_path} {' '.join(filter(None, words))}'"
    arguments = _arguments(ctx.command)
    long = [each[2:] for each in _options(ctx) if each.startswith("--")]
    meant = meant_by(name, [*long, *arguments])
    if meant and meant[0] in arguments:
        return f"write it without an option, as in '{ctx.command_path} {metavar(arguments[meant[0]])}'"
    if meant:
        return f"did you mean {' or '.join(f'--{each}' for each in meant if each not in arguments)}?"
    answer = next((answer for names, answer in ANSWERS.items() if plain(name) in names), None)
    return answer or _option_elsewhere(name, ctx) or _help(ctx)


def _option_elsewhere(name: str, ctx: Any) -> str:
    """Return the end of a message that names the commands with an option that a command does not have, if any."""
    own = getattr(ctx.command, "commands", {}) if ctx.parent else {}
    options = [f"--{each}" for each in (plain(name), *usual_meanings(name))]
    for inside, commands in ((True, own), (ctx.parent is None, _all_commands())):
        for option in options:
            having = [each for each, command in commands.items() if option.split()[0] in _options(ctx, command)]
            if having and inside:
                return f"write it after the command, as in '{ctx.command_path} {having[0]} {option}'"
            if having:
                who = " and ".join(having) if len(having) < 3 else f"{having[0]}, {having[1]} and others"
                return f"{who} {'has' if len(having) == 1 else 'have'} {option}"
    return ""


def _all_commands() -> dict[str, Any]:
    """Build all commands of m2sd, which takes longer than any other part of a message."""
    from m2sd_cli.cli.commands import COMMANDS, build_command

    return {name: build_command(name) for name in COMMANDS}
