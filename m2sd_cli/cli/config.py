"""The command `m2sd config`."""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import command, document, note, result, table
from m2sd_cli.config.files import OptionsFile, read_options
from m2sd_cli.config.merging import Sources, resolve_with_origins
from m2sd_cli.config.option import TrainingOption, as_word, flag, options_of
from m2sd_cli.config.stages import MODELS, STAGES
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS, find_info
from m2sd_cli.recipes import Recipe, find_recipe

FILE = "m2sd.toml"

app = typer.Typer(cls=Group, rich_markup_mode=None)

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help=f"{', '.join(DATA_SETS.entries)}, or a folder; by default that of the file or the recipe.",
        show_default=False,
        autocompletion=options.complete_data_sets,
    ),
]


@app.callback(invoke_without_command=True)
def config(context: typer.Context, json: options.Json = False) -> None:
    """Show the options of a training with their origin, and write them as a file for --config.

    Examples:
      m2sd config show --data cifar100 --config mine.toml
      m2sd config init --data cifar100
      m2sd config schema > m2sd.schema.json
    """
    if context.invoked_subcommand is None:
        show(json=json)
    else:
        options.refuse_before_subcommand(context)


@app.command("show", cls=Command)
def show(
    data: Data = None, recipe: options.RecipeName = None, config: options.ConfigFile = None, json: options.Json = False
) -> None:
    """Show every option of both stages with its value and the origin of it.

    Example:
      m2sd config show --recipe cifar100-resnet20 --config mine.toml
    """
    followed = find_recipe(recipe)
    name = _data(data, config, followed)
    shown = {stage: origins(stage, name, config, followed) for stage in STAGES}
    info = find_info(name) if name is not None else None
    if info is not None:
        shown["pretrain"]["image_size"] = info.image_size, "data set"
    if json:
        fields = ("value", "origin")
        document(
            {
                "data": name,
                "recipe": followed.name,
                **{
                    stage: {each: dict(zip(fields, pair, strict=True)) for each, pair in values.items()}
                    for stage, values in shown.items()
                },
            }
        )
        return
    result(f"data: {name or 'a folder'}")
    rows = [
        [stage, flag(each), options_of(MODELS[stage])[each].shown_default if value is None else as_word(value), origin]
        for stage, values in shown.items()
        for each, (value, origin) in values.items()
    ]
    for line in table(["stage", "option", "value", "origin"], rows):
        result(line)


@app.command("init", cls=Command)
def init(
    out: Annotated[Path, typer.Argument(help="File to write; - is stdout.")] = Path(FILE),
    data: Data = None,
    recipe: options.RecipeName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a file of options for --config, each with its help.

    All are comments, except those of the recipe: remove the # of an option to set it.

    Examples:
      m2sd config init
      m2sd config init mine.toml --recipe cifar100-resnet20
    """
    followed = find_recipe(recipe)
    text = commented(_data(data, None, followed), followed)

    from m2sd_cli.output_files import check_output, is_stdout, write_output
    from m2sd_cli.runs.folder import open_run

    check_output("FILE", out, open_run(), replace=force)
    write_output(out, text.encode())
    if not is_stdout(out):
        note(f"{out}: change it, then: {command('pretrain', None, config=out)}", quiet)


@app.command("schema", cls=Command)
def schema() -> None:
    """Print the JSON Schema of a file for --config, which editors of TOML use.

    Example:
      m2sd config schema > m2sd.schema.json
    """
    document(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Options of m2sd",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "data": {"type": "string", "description": "Name of a data set, or a folder."},
                **{
                    stage: {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {each.name: _property(each) for each in options_of(MODELS[stage]).values()},
                    }
                    for stage in STAGES
                },
            },
        }
    )


def origins(stage: str, data: str | None, file: Path | None, followed: Recipe) -> dict[str, tuple[Any, str]]:
    """Return value and origin of every option of a stage by its name.

    Raises:
        UsageError: a value does not fit.
    """
    model: Any = MODELS[stage]
    info = find_info(data) if data is not None else None
    init = seed = None
    if stage == "distill":
        first = origins("pretrain", data, file, followed)
        init, seed = first["init"][0], first["seed"][0]
    defaults = info.defaults if info else FOLDER_DEFAULTS
    settings, sources = resolve_with_origins(
        model, Sources(defaults, file, recipe=followed.options, init=init, seed=seed)
    )
    return {name: (getattr(settings, name), origin) for name, origin in sources.items()}


def _data(data: str | None, file: Path | None, followed: Recipe) -> str | None:
    named = read_options(file) if file is not None else OptionsFile(None, {})
    return data or named.data or followed.options.data


def commented(data: str | None, followed: Recipe) -> str:
    """Write the options of both stages as TOML, with the help of each before it.

    Raises:
        UsageError: a value does not fit.
    """
    lines = [f"# Options of m2sd, for --config{f'; recipe {followed.name}' if followed.name else ''}.", ""]
    lines += [f"data = {_toml(data)}" if data else '# data = "cifar100"']
    for stage in STAGES:
        lines += ["", f"[{stage}]"]
        model = MODELS[stage]
        for name, (value, origin) in origins(stage, data, None, followed).items():
            option = options_of(model)[name]
            lines += ["", f"# {option.help}"]
            if value is None:
                lines += [f"# {name} =  # {option.shown_default}"]
            else:
                lines += [("" if origin == "recipe" else "# ") + f"{name} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON and TOML write numbers and truth values alike, and texts but for DEL, and for the surrogates of ASCII.
    return json_module.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _property(option: TrainingOption) -> Mapping[str, Any]:
    found: dict[str, Any] = {**option.schema(), "description": option.help}
    if option.choices:
        found["enum"] = list(option.choices)
    if isinstance(option.default, str | int | float):
        found["default"] = option.default
    return found
