"""The tables of the documents, each made from a table of the program or from a file of figures."""

import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from importlib import import_module
from typing import Any

from m2sd_cli.ablation.rows import FE, ROWS, WEIGHTS
from m2sd_cli.cli.commands import COMMANDS, build_command
from m2sd_cli.cli.training import usual_words
from m2sd_cli.config.option import flag, options_of
from m2sd_cli.config.stages import MODELS
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import EXIT_CODES
from m2sd_cli.exporting import EXPORT_FORMATS
from m2sd_cli.method.base_statistics import BaseStatistics
from m2sd_cli.method.stage3 import KnownClasses
from m2sd_cli.recipes import find_recipe, recipe_names
from m2sd_cli.recipes.results import find_measured, read_results, words_on
from m2sd_cli.reports.published import Published, published_methods
from m2sd_cli.tables import BACKBONES, CLASSIFIERS
from tests.documents.markdown import ROOT

Rows = Iterable[Sequence[object]]

# The equations of the paper, each with the functions and classes of `method/` that compute it.
EQUATIONS = {
    "f(x) = W^T phi(x)": "network.Network class_weights.class_logits",
    "stage 1: cross-entropy on the base classes": "losses.cross_entropy",
    "pairs (x_i, x_j) with y_i != y_j": "mixing.pair_different_classes",
    "lambda ~ Beta(a, a), one for both branches": "mixing.sample_lambda",
    "x_I = lambda x_i + (1 - lambda) x_j": "mixing.mixup",
    "x_II = M * x_i + (1 - M) * x_j": "mixing.cutmix",
    "r_w = W sqrt(1 - lambda), r_x ~ U(r_w/2, W - r_w/2)": "mixing.cutmix_box",
    "y_I = y_II = lambda y_i + (1 - lambda) y_j": "mixing.soft_labels",
    "L_ce^v = CE(y_I, f(x_I)) + CE(y_II, f(x_II))": "losses.l_ce",
    "L_KL^v = KL(f(x_I), f(x_II)) + KL(f(x_II), f(x_I))": "losses.l_kl",
    "FE(x) = FPN(EN(phi(x))), p_hat = W'(T_4)": "enhancement.FeatureEnhancement",
    "EN: MHSA on blocks 1 and 4": "attention.SelfAttention",
    "EN: coordinate attention on blocks 2 and 3": "attention.CoordinateAttention",
    "FPN: BiFPN, T_1 .. T_4": "bifpn.BiFPN",
    "L_AT = KL(p_hat, f(x)) + sum_i norm(at(T_i) - at(phi_i))^2": (
        "losses.l_at losses.kl_divergence losses.attention_transfer"
    ),
    "at(.)": "losses.attention_map",
    "L = L_ce^v + L_KL^v + L_AT": "distillation.distillation_terms distillation.total_loss",
    "stage 3: w_i = (1/K) sum_j phi(x_j)": "prototypes.ClassMeans means.build",
}


def markdown(columns: Sequence[str], rows: Rows) -> str:
    """Write a table as Markdown does; None leaves a cell empty."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines).replace("|  |", "| |")


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def code(text: object) -> str:
    """Mark a word as code."""
    return f"`{text}`"


def commands() -> str:
    """The commands, in the order of `m2sd --help`."""
    return markdown(["command", ""], ([code(f"m2sd {name}"), entry.help] for name, entry in COMMANDS.items()))


def exit_codes() -> str:
    """The exit codes of all commands."""
    return markdown(["exit code", "meaning"], EXIT_CODES.items())


def options(stage: str) -> str:
    """The options of a stage with their defaults and their symbols in the paper."""
    model = MODELS[stage]
    rows = (
        [code(flag(option.name)), usual_words(model, option), option.option.symbol, option.help]
        for option in options_of(model).values()
    )
    return markdown([f"option of `m2sd {stage}`", "default", "in the paper", ""], rows)


def helps(command: str, *names: str) -> str:
    """The help of some options of a command."""
    found = {name: each for each in build_command(command).params for name in each.opts}
    rows = ([code(f"--{name}"), found[f"--{name}"].help] for name in names)
    return markdown([f"option of `m2sd {command}`", ""], rows)


def subcommands(command: str) -> str:
    """The commands of a group, in the order of its help."""
    firsts = (
        (name, inspect.cleandoc(each.help).split("\n\n")[0]) for name, each in build_command(command).commands.items()
    )
    return markdown(
        ["command", ""], ([code(f"m2sd {command} {name}"), " ".join(text.split())] for name, text in firsts)
    )


def symbols() -> str:
    """The options that have a symbol in the paper, of both stages."""
    rows = (
        [option.option.symbol, code(f"m2sd {stage} {flag(option.name)}"), usual_words(model, option), option.help]
        for stage, model in MODELS.items()
        for option in options_of(model).values()
        if option.option.symbol
    )
    return markdown(["in the paper", "option", "default", ""], rows)


def equations() -> str:
    """The equations of the paper, with links to the lines that compute them."""
    rows = []
    for equation, names in EQUATIONS.items():
        places = []
        for module, _, name in (each.partition(".") for each in names.split()):
            line = inspect.getsourcelines(getattr(import_module(f"m2sd_cli.method.{module}"), name))[1]
            places.append((f"[`{module}.py:{line}`]({module}.py#L{line})", code(name)))
        rows.append([equation, *map(", ".join, zip(*places, strict=True))])
    return markdown(["equation", "file and line", "function or class"], rows)


def classifiers() -> str:
    """The classifiers of stage 3."""
    rows = ([code(name), entry.rule, entry.source] for name, entry in CLASSIFIERS.entries.items())
    return markdown(["`--classifier`", "an image goes to", "after"], rows)


def backbones() -> str:
    """The backbones, and the weights of ImageNet that they can begin from."""
    rows = (
        [
            code(name),
            entry.label,
            entry.imagenet and code(entry.imagenet.name),
            entry.imagenet and entry.imagenet.licence,
        ]
        for name, entry in BACKBONES.entries.items()
    )
    return markdown(["`--backbone`", "network", "`--init imagenet`", "licence"], rows)


def data_sets() -> str:
    """The data sets that come with sessions of their own."""
    rows = (
        [
            code(name),
            info.base,
            f"{info.sessions} x {info.way}",
            info.shots,
            info.image_size,
            info.layout or "in the package",
        ]
        for name, info in DATA_SETS.entries.items()
    )
    return markdown(["`--data`", "base classes", "sessions x classes", "shots", "pixels", "files"], rows)


def known_classes() -> str:
    """The fields of what a classifier of stage 3 is given, with the comments beside them."""
    rows = [*commented_fields(KnownClasses), *commented_fields(BaseStatistics, "statistics.")]
    return markdown(["of `known`", ""], rows)


def commented_fields(kind: type, prefix: str = "") -> list[list[str]]:
    """Return each field of a class, marked as code, and the comment that stands beside it."""
    found = re.findall(r"^    (\w+): [^#\n]+#(?: (.+))$", inspect.getsource(kind), re.MULTILINE)
    assert [name for name, _ in found] == [field.name for field in fields(kind)], f"a field of {kind} has no comment"
    return [[code(prefix + name), comment] for name, comment in found]


def export_formats() -> str:
    """The formats of `m2sd export`."""
    rows = (
        [code(name), "folder" if entry.folder else "file", entry.extra and code(f"m2sd[{entry.extra}]")]
        for name, entry in EXPORT_FORMATS.entries.items()
    )
    return markdown(["`--format`", "writes a", "needs"], rows)


def extras() -> str:
    """The optional dependencies of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = (
        [code(f"m2sd[{name}]"), ", ".join(map(code, needs))] for name, needs in project["optional-dependencies"].items()
    )
    return markdown(["extra", "packages"], rows)


def recipes() -> str:
    """The recipes that ship, with what they take where that has been measured."""
    named = {name: find_recipe(name) for name in recipe_names()}
    words = {name: words_on(name) for name in named}
    rows = ([code(name), each.title, words[name]["time"], words[name]["accuracy"]] for name, each in named.items())
    return markdown(["`--recipe`", "", "time", "accuracy"], rows)


def ablation_rows() -> str:
    """The rows of `m2sd ablation`, with the parts of the method that they train."""
    rows = (
        [
            code(name),
            row.description,
            parts.mixing,
            parts.enhancement if parts.terms & FE else None,
            ", ".join(each.removesuffix("_weight") for each in WEIGHTS if each in parts.terms),
        ]
        for name, row in ROWS.items()
        if (parts := row.parts) is not None
    )
    return markdown(["row", "", "`--mixing`", "`--enhancement`", "terms with a weight"], rows)


def results(name: str) -> str:
    """A table of `results.toml`, and its origin below it."""
    table = read_results()["tables"][name]
    signed = table.get("signed", False)
    return markdown(table["columns"], ([figure(cell, signed) for cell in row] for row in table["rows"])) + caption(
        table
    )


def figure(cell: object, signed: bool = False) -> str:
    """Write a cell: a text, a number, or a mean and its deviation."""
    if isinstance(cell, list | tuple):
        return f"{figure(cell[0], signed)} ± {cell[1]}"
    plus = "+" * (signed and isinstance(cell, Decimal) and not cell.is_signed())
    return f"{plus}{cell}"


def caption(table: Mapping[str, Any]) -> str:
    """Write the origin of figures in one line."""
    seeds = [str(each) for each in table.get("seeds", [])]
    recipe = table["recipe"]
    named = f"with the recipe {code(recipe)}" if recipe in recipe_names() else f"without a recipe: {recipe[6:]}"
    parts = (
        f"Measured {named}",
        table.get("images"),
        f"`debiased` with a share of {table['share']}, not with `--base-cost`" if "share" in table else None,
        f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else None,
        f"{table['hours']} h a seed" if "hours" in table else None,
        table.get("hardware"),
        code(table["command"]) if "command" in table else None,
    )
    sentence = f"{'; '.join(filter(None, parts))}."
    return "\n" + textwrap.fill(sentence, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def compared(recipe: str) -> str:
    """The result of a recipe above the published figures of its data set and backbone."""
    options, own = find_recipe(recipe).options, find_measured(recipe)
    assert own is not None, f"{recipe} has not been measured"
    assert options.data is not None
    columns = ["method", "session 0", "last", "AVG", "PD", "HM"]
    first = own.base_session
    drop = None if first is None else first[0] - own.last[0]
    ours = [f"**`{recipe}`**", *map(figure, (first or "-", own.last, own.average, drop or "-", own.harmonic))]
    label = BACKBONES[options.tables["pretrain"]["backbone"]].label
    return markdown(columns, [ours, *published_rows(options.data, label)])


def published_rows(data: str, backbone: str) -> list[list[object]]:
    """Return the rows of published figures, the oldest first, with the marks of `m2sd evaluate --compare`.

    Args:
        data: the data set.
        backbone: the network, as papers call it.
    """
    found = [Published(method, row) for method in published_methods() for row in method.rows]
    chosen = [each for each in found if (each.row.data, each.row.backbone) == (data, backbone)]
    assert chosen, f"nothing is published on {data} with {backbone}"
    return [
        [
            f"{each.method.name} ({each.method.year}){each.mark}",
            "-" if each.marked_base is None else str(each.marked_base),
            *(
                "-" if value is None else value
                for value in (each.row.last, each.row.average, each.row.drop, each.row.harmonic)
            ),
        ]
        for each in sorted(chosen, key=lambda each: each.method.year)
    ]


TABLES: dict[str, Callable[..., str]] = {
    "commands": commands,
    "exit codes": exit_codes,
    "options": options,
    "help": helps,
    "subcommands": subcommands,
    "symbols": symbols,
    "equations": equations,
    "classifiers": classifiers,
    "backbones": backbones,
    "data sets": data_sets,
    "export formats": export_formats,
    "known classes": known_classes,
    "extras": extras,
    "recipes": recipes,
    "ablation rows": ablation_rows,
    "results": results,
    "compared": compared,
}


def make_table(name: str) -> str:
    """Make the table of a marker: the name of a function, and its arguments.

    Raises:
        KeyError: there is no such table.
    """
    found = max((each for each in TABLES if f"{name} ".startswith(f"{each} ")), key=len, default=name)
    return TABLES[found](*name.removeprefix(found).split())
