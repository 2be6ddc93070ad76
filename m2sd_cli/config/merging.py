"""The options of a stage merged from data set, recipe, file and command line, each with its origin."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from m2sd_cli.config.files import NO_OPTIONS, OptionsFile, read_options
from m2sd_cli.config.idle import without_effect
from m2sd_cli.config.option import find_option, flag, nearest, options_of, shown
from m2sd_cli.config.stages import (
    ENHANCEMENT_TERMS,
    MISSING_TERMS,
    MODELS,
    NO_INIT,
    Config,
    DistillConfig,
    PretrainConfig,
    stage_of,
    validate,
)
from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted
from m2sd_cli.tables import OPTIMIZERS

PRETRAIN_SHARE = 0.2  # of a data set's epochs; the paper's stage 1
OPTIMIZER_OPTIONS = ("learning_rate", "weight_decay")
TRAINED: dict[str, dict[str, Any]] = {  # of each stage, where stage 1 begins from the weights of --init
    "pretrain": {"optimizer": "adamw", "backbone_rate": 0.1},
    "distill": {"optimizer": "adamw"},
}
TRANSFER = {"attention_reduction": "mean", "attention_weight": 0.0}  # without a layer that has them
DEFAULT_ORIGIN = "default"
RECIPE_ORIGIN = "recipe"


@dataclass(frozen=True)
class Sources:
    """The sources of the options of one stage.

    Of two sources that set an option the earlier one wins: the options, the file, the file that stage 1 was given, the
    recipe, the seed of stage 1, the defaults of the data set, the defaults of the model.
    """

    # Of the data set, for both stages or in a table for one. `total_epochs` are divided between the stages, stage 1
    # taking `pretrain_share` of them.
    defaults: Mapping[str, Any]
    file: Path | None = None  # TOML with a table for each stage, [pretrain] and [distill]
    options: Mapping[str, Any] = field(default_factory=dict)  # None stands for an option that was not given
    recipe: OptionsFile = NO_OPTIONS  # the recipe that is followed
    inherited: OptionsFile = NO_OPTIONS  # the file of stage 1, which stage 2 follows
    init: object = None  # the weights that stage 1 began from, for stage 2
    seed: int | None = None  # of stage 1, for stage 2


class Layer(NamedTuple):
    """Values of options of one stage, and their source."""

    origin: str
    values: Mapping[str, Any]


def resolve(model: type[Config], sources: Sources) -> Config:
    """Merge and validate one configuration, see `resolve_with_origins`."""
    return resolve_with_origins(model, sources)[0]


def resolve_with_origins(model: type[Config], sources: Sources) -> tuple[Config, dict[str, str]]:
    """Merge and validate one configuration.

    Returns:
        the configuration, and the source of each option by its name.

    Raises:
        UsageError: a value does not fit, or another one than usual is given to an option that would change nothing; the
            message names the option.
    """
    *earlier, given = layers(model, sources)
    merged = merge(model, [*earlier, given], sources.init)
    values = {name: value for name, (_, value) in merged.items()}
    settings = validate(model, values, source=str(sources.file) if sources.file else None)
    origins = {name: merged.get(name, (DEFAULT_ORIGIN,))[0] for name in options_of(model)}
    idle = without_effect(model, dataclasses.asdict(settings))
    usual = merge(model, earlier, sources.init)
    for name in idle.keys() & given.values.keys():  # a file may have every option
        if values[name] != usual.get(name, ("", options_of(model)[name].default))[1]:
            raise UsageError(f"{flag(name)} {shown(values[name])}: {idle[name]}; leave it out")
    return settings, origins


def layers(model: type[Config], sources: Sources) -> list[Layer]:
    """List the values of the options of one stage by their source; a later source wins.

    Raises:
        UsageError: the file is missing, no TOML, or holds something else; or an option is unknown, also of a data set.
    """
    stage = stage_of(model)
    check_defaults(model, sources.defaults)
    return [
        Layer("data set", stage_defaults(model, sources.defaults)),
        Layer("pretrain", {} if sources.seed is None else {"seed": sources.seed}),
        Layer(RECIPE_ORIGIN, sources.recipe.tables.get(stage, {})),
        Layer("pretrain's file", sources.inherited.tables.get(stage, {})),
        Layer("file", given_options(model, sources.file, {})),
        Layer("command line", given_options(model, None, sources.options)),
    ]


def merge(model: type[Config], sources: Sequence[Layer], init: object = None) -> dict[str, tuple[str, Any]]:
    """Merge layers, of which a later one wins, over the defaults of the optimiser that they choose.

    Learning rate and weight decay of a layer go with its optimiser: a later layer with another optimiser drops them.
    Weights of terms that the mixing of a later layer does not have are dropped, and so are those of feature enhancement
    where a later layer chooses its kind. The weight of the attention transfer, unless it is 0, goes with its reduction.
    If stage 1 begins from weights and no layer names optimiser or learning rate,
    the values are those of TRAINED.

    Args:
        model: the configuration of a stage.
        sources: the layers.
        init: the weights that stage 1 began from, for stage 2.

    Returns:
        Origin and value of each option by its name, without options that have the model's defaults.
    """
    optimizer = options_of(model)["optimizer"]
    chosen: str = optimizer.default
    merged: dict[str, tuple[str, Any]] = {}
    for origin, values in sources:
        other = optimizer.check(values.get("optimizer", chosen))
        dropped = superseded(values, other != chosen)
        reduction, weight = (merged.get(name, ("", usual))[1] for name, usual in TRANSFER.items())
        if weight and values.get("attention_reduction", reduction) != reduction:
            dropped |= {"attention_weight"}
        merged = {name: each for name, each in merged.items() if name not in dropped}
        chosen = other
        merged |= {name: (origin, value) for name, value in values.items()}
    begins_trained = merged.get("init", ("", init))[1] not in (None, NO_INIT)
    if begins_trained and not merged.keys() & {"optimizer", "learning_rate"}:
        trained = TRAINED[stage_of(model)]
        chosen = trained["optimizer"]
        merged = {**{name: (DEFAULT_ORIGIN, value) for name, value in trained.items()}, **merged}
    own = OPTIMIZERS[chosen].defaults.get(stage_of(model), {})
    return {**{name: (DEFAULT_ORIGIN, value) for name, value in own.items()}, **merged}


def superseded(values: Mapping[str, Any], other_optimizer: bool) -> set[str]:
    """Return the options of earlier layers that a layer drops by its choices, see `merge`.

    Args:
        values: the layer's.
        other_optimizer: True if it chooses another optimiser than the layers before it.
    """
    names = {*MISSING_TERMS.get(str(values.get("mixing")), ())}
    if other_optimizer:
        names |= {*OPTIMIZER_OPTIONS}
    if "enhancement" in values:
        names |= {*ENHANCEMENT_TERMS}
    return names


def check_defaults(model: type[PretrainConfig | DistillConfig], defaults: Mapping[str, Any]) -> None:
    """Refuse names in the defaults of a data set that are no options, which would be left out.

    Raises:
        UsageError: one is none; the message names the nearest option.
    """
    known = {*options_of(PretrainConfig), *options_of(DistillConfig), "total_epochs", "pretrain_share", *MODELS}
    own = {name: options_of(model) for name in defaults.get(stage_of(model), {})}
    for name, names in (dict.fromkeys(defaults, known) | own).items():
        if name not in names:
            raise UsageError(
                f"the defaults of the data set: there is no option {quoted(repr(name))}{nearest(name, names)}"
            )


def stage_defaults(model: type[PretrainConfig | DistillConfig], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of one stage from those of a data set, as `resolve` takes them."""
    values = {name: value for name, value in defaults.items() if name in options_of(model)}
    values |= defaults.get(stage_of(model), {})
    if "total_epochs" in defaults:
        first = max(1, round(defaults.get("pretrain_share", PRETRAIN_SHARE) * defaults["total_epochs"]))
        values["epochs"] = first if model is PretrainConfig else defaults["total_epochs"] - first
    return values


def given_options(model: type[Config], file: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of one stage that a person has set; those of the command line win over those of the file.

    Args:
        model: the configuration of a stage.
        file: TOML with a table for each stage.
        options: None stands for an option that was not given.

    Raises:
        UsageError: the file is missing, no TOML, or holds something else; or an option is unknown.
    """
    for name in options:
        find_option(options_of(model), name)
    table = dict(read_options(file).tables.get(stage_of(model), {})) if file is not None else {}
    return table | {name: value for name, value in options.items() if value is not None}
