"""The command `m2sd recipes`."""

from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.groups import Command, Group
from m2sd_cli.cli.output import document, result, results, table
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import find_recipe, recipe_names
from m2sd_cli.recipes.results import words_on

app = typer.Typer(cls=Group, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def recipes(context: typer.Context, json: options.Json = False) -> None:
    """List and show the options that ship with m2sd, with their time and accuracy where they have been measured.

    A recipe that ends in -letter has the paper's formulas. One that ends in -paper departs from them in three things,
    which its comments name; the others depart in more.

    Examples:
      m2sd recipes
      m2sd recipes show cifar100-resnet20 > mine.toml
      m2sd pretrain --config mine.toml
    """
    if context.invoked_subcommand is None:
        list_recipes(json)
    else:
        options.refuse_before_subcommand(context)


@app.command("list", cls=Command)
def list_recipes(json: options.Json = False) -> None:
    """List the recipes.

    Example:
      m2sd recipes list --json
    """
    named = {name: find_recipe(name) for name in recipe_names()}
    if json:
        document(
            {
                "recipes": [
                    {
                        "name": name,
                        "title": each.title,
                        "data": each.options.data,
                        **words_on(name),
                        **each.options.tables,
                    }
                    for name, each in named.items()
                ]
            }
        )
        return
    measured = {name: words_on(name) for name in named}
    rows = [[name, measured[name]["time"], measured[name]["accuracy"], each.title] for name, each in named.items()]
    results(table(["name", "time", "accuracy", "what"], rows))


@app.command("show", cls=Command)
def show(
    name: Annotated[str, typer.Argument(help="Name of the recipe.", show_default=False, autocompletion=recipe_names)],
) -> None:
    """Print a recipe, to be saved, changed and given as --config.

    Example:
      m2sd recipes show cifar100-resnet20
    """
    if name not in recipe_names():
        raise UsageError(f"{name}: no such recipe; choose {', '.join(recipe_names())}")
    for line in find_recipe(name).text.splitlines():
        result(line)
