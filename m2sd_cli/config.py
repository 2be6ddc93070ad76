"""The options of training: declared once, validated, and merged from data set, recipe, file and command line.

A field of PretrainConfig or DistillConfig is an option of the command, of the function and of a file of the same name.
Pydantic is imported for the first value that is checked, since help pages need the fields alone.
"""

import dataclasses
import inspect
import itertools
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

from m2sd_cli.errors import UsageError
from m2sd_cli.method.loss_weights import LossWeights
from m2sd_cli.reading import quoted, read_regular
from m2sd_cli.registry import (
    BACKBONES,
    CLASSIFIERS,
    DEFAULT_CLASSIFIER,
    OPTIMIZERS,
    SCHEDULES,
    UNTRAINED_CLASSIFIER,
    Registry,
    one_of,
)

PRETRAIN_SHARE = 0.2  # of a data set's epochs; the paper's stage 1
CLASSIFIER_DEFAULT = f"{DEFAULT_CLASSIFIER}, or {UNTRAINED_CLASSIFIER} without any training"
NO_INIT = "none"
OPTIMIZER_OPTIONS = ("learning_rate", "weight_decay")
TRAINED: dict[str, dict[str, Any]] = {  # of each stage, where stage 1 begins from the weights of --init
    "pretrain": {"optimizer": "adamw", "backbone_rate": 0.1},
    "distill": {"optimizer": "adamw"},
}
DEFAULT_ORIGIN = "default"
STAGES = ("pretrain", "distill")
FILE_LIMIT = 2**20  # bytes of a file of options
MANY = 10**9
SEED = "Same seed: same result, on the same CPU with as many threads."
RATE = "Of W, after the warm-up."
DEFAULT_MILESTONES = (0.6, 0.8)  # of the epochs


@dataclass(frozen=True, kw_only=True)
class Option:
    """The bounds and the help of an option, whose name, type and default are those of its field.

    `{choices}` in the help stands for the choices.
    """

    help: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    table: Registry[Any] | None = None  # the table of what the option names
    default: str | None = None  # for the help page, where None or the default of the field is not the whole truth
    aliases: tuple[str, ...] = ()  # earlier names, which the command line takes without showing them


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """The choice of the base training images that stage 1 is given, and with it every later stage."""

    held_out: Annotated[float, Option(help="Share of each base class never to train on, up to 0.5.", ge=0, le=0.5)] = (
        0.0
    )
    images_per_class: Annotated[
        int | None,
        Option(help="Train on so many images of each base class only.", ge=1, le=MANY, default="all"),
    ] = None  # of those that are not held out


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """The division of a built-in data set, as far as it is not the official one."""

    base_classes: Annotated[
        int | None, Option(help="Of a built-in data set; sessions teach the others.", ge=2, le=MANY, default="official")
    ] = None
    way: Annotated[
        int | None, Option(help="Classes of a session; the last may be smaller.", ge=1, le=MANY, default="official")
    ] = None
    shots_per_class: Annotated[
        int | None, Option(help="Images of a new class that a session teaches.", ge=1, le=MANY, default="official")
    ] = None
    class_order: Annotated[
        str | None,
        Option(
            help="Seed of a permutation, as 1993, or a file: one class a line, by name or number.", default="official"
        ),
    ] = None  # in a configuration that was used the name of the file, without its folder
    shots_draw: Annotated[
        int | None,
        Option(help="Number of a draw of the shots.", ge=1, le=MANY, default="official; 1 where a class has too few"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options that both stages share."""

    epochs: Annotated[int, Option(help="Epochs of this stage.", ge=1, le=MANY)]
    batch_size: Annotated[int, Option(help="Images a step.", ge=2, le=MANY)] = 256  # the paper's
    optimizer: Annotated[str, Option(help="{choices}.", table=OPTIMIZERS)] = "sgd"
    learning_rate: Annotated[float, Option(help=RATE, gt=0, default="0.1; adamw: 0.001")] = 0.1
    backbone_rate: Annotated[float, Option(help="Learning rate of the backbone, W's being 1.", gt=0)] = 1.0
    schedule: Annotated[
        str, Option(help="{choices}: the learning rate falls to 0, at milestones, or not.", table=SCHEDULES)
    ] = "cosine"
    milestones: Annotated[
        str | None,
        Option(
            help="Epochs after which multistep lowers the learning rate, as 60,80.", default="60 % and 80 % of them"
        ),
    ] = None
    gamma: Annotated[float, Option(help="Its factor at each milestone.", gt=0, lt=1)] = 0.1
    warmup_epochs: Annotated[
        float, Option(help="Epochs in which the learning rate rises from 0; 0.5 is half of one.", ge=0)
    ] = 0.0
    momentum: Annotated[float, Option(help="Nesterov momentum; adamw: beta_1.", gt=0, lt=1)] = 0.9
    weight_decay: Annotated[
        float, Option(help="L2 penalty; adamw: decoupled.", ge=0, default="0.0005; adamw: 0.05")
    ] = 5e-4
    auto_augment: Annotated[
        Literal["none", "cifar10", "imagenet"],
        Option(help="AutoAugment's policy for training images: {choices}."),
    ] = "none"
    colour: Annotated[
        float, Option(help="Vary brightness, contrast and saturation by up to this share, 0 to 1.", ge=0, le=1)
    ] = 0.0
    cutout: Annotated[
        float, Option(help="A hole in each training image, its side this share of the image's.", ge=0, le=1)
    ] = 0.0
    seed: Annotated[int, Option(help=SEED, ge=0, lt=2**63)] = 0

    def __post_init__(self) -> None:
        """Refuse a schedule that does not fit the epochs.

        Raises:
            UsageError: it does not; the message names the option.
        """
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise UsageError(f"--warmup-epochs {self.warmup_epochs:g}: less than the {self.epochs} epochs of the stage")
        if self.milestones is not None and self.schedule != "multistep":
            raise UsageError(f"--milestones {quoted(self.milestones)}: for --schedule multistep")
        milestones(self)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig, ImageChoice, ProtocolOptions):
    """The options of stage 1. With 0 epochs the network is the one that it begins from."""

    epochs: Annotated[
        int, Option(help="Epochs of this stage; 0 leaves the weights of --init as they are.", ge=0, le=MANY)
    ]
    optimizer: Annotated[
        str, Option(help="{choices}.", table=OPTIMIZERS, default="sgd, or adamw with --init alone")
    ] = "sgd"
    backbone_rate: Annotated[
        float, Option(help="Learning rate of the backbone, W's being 1.", gt=0, default="1, or 0.1 with --init alone")
    ] = 1.0
    backbone: Annotated[str, Option(help="{choices}.", table=BACKBONES)] = "resnet18"
    similarity: Annotated[
        Literal["cosine", "linear"], Option(help="Of features and class weights: {choices}.", aliases=("classifier",))
    ] = "cosine"
    # A lower scale trades novel classes for base classes.
    scale: Annotated[float, Option(help="Factor of the cosine.", gt=0)] = 16.0
    image_size: Annotated[int | None, Option(help="Pixels, for a folder.", ge=8, le=4096, default="224")] = None
    split: Annotated[
        str | None,
        Option(help="List of a folder's base, session and test images, as TOML.", default="none"),
    ] = None  # in a configuration that was used the name of the file, without its folder
    transform: Annotated[
        str | None,
        Option(help="Treat a folder's pictures as those of a built-in data set, as cifar100.", default="none"),
    ] = None
    init: Annotated[
        str | None,
        Option(
            help="Begin from weights: imagenet, a file (.safetensors, .pth), timm's local-dir:DIR, or none.",
            default="none",
        ),
    ] = None  # in a configuration that was used the name of the file, without its folder

    def __post_init__(self) -> None:
        """Refuse a random network that is not trained.

        Raises:
            UsageError: there are no epochs, and no weights to begin from.
        """
        super().__post_init__()
        if self.epochs == 0 and self.init in (None, NO_INIT):
            raise UsageError("--epochs 0: the network would stay random; begin from weights, as --init imagenet does")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """The options of stage 2. With 0 epochs the base session is made of stage 1 as it is.

    The learning rate is lower than that of stage 1, because L is a sum of some five terms of the size of a
    cross-entropy.
    """

    epochs: Annotated[int, Option(help="Epochs of this stage; 0 leaves the network as it is.", ge=0, le=MANY)]
    optimizer: Annotated[
        str, Option(help="{choices}.", table=OPTIMIZERS, default="sgd, or adamw after pretrain --init")
    ] = "sgd"
    learning_rate: Annotated[float, Option(help=RATE, gt=0, default="0.02; adamw: 0.0002")] = 0.02
    mixing: Annotated[
        Literal["both", "mixup", "cutmix", "none"], Option(help="both, mixup or cutmix; none: unmixed images.")
    ] = "both"
    enhancement: Annotated[Literal["full", "no-attention", "no-pyramid"], Option(help="{choices}.")] = "full"
    beta: Annotated[float, Option(help="a of lambda ~ Beta(a, a).", gt=0)] = 1.0
    temperature: Annotated[float, Option(help="Of the distillation.", gt=0)] = 4.0  # KL(p_hat, f)
    ce_weight: Annotated[float, Option(help="Cross-entropy of virtual images.", ge=0)] = LossWeights.ce  # L_ce^v
    # L_KL^v; 0 by default where there is one branch.
    kl_weight: Annotated[float, Option(help="Symmetric KL of both branches.", ge=0)] = LossWeights.kl
    kd_weight: Annotated[float, Option(help="Distillation from the enhanced features.", ge=0)] = LossWeights.kd
    attention_weight: Annotated[float, Option(help="Attention transfer.", ge=0)] = LossWeights.attention
    # W' alone teaches FE: kd and attention stop there.
    teacher_weight: Annotated[
        float, Option(help="Cross-entropy of the teacher, the only term that teaches it.", ge=0)
    ] = LossWeights.teacher
    clean_weight: Annotated[
        float, Option(help="Cross-entropy of unmixed images, which the paper does not have.", ge=0)
    ] = LossWeights.clean
    # Channels of T_i for each of phi_i.
    pyramid_width: Annotated[int, Option(help="Channels of the pyramid for each of the network's.", ge=1, le=8)] = 1
    classifier: Annotated[
        str | None, Option(help="Of new classes: {choices}.", table=CLASSIFIERS, default=CLASSIFIER_DEFAULT)
    ] = None  # of stage 3, from session 0 on
    seed: Annotated[int, Option(help=SEED, ge=0, lt=2**63, default="pretrain's")] = 0
    views: Annotated[
        int,
        Option(
            help="Of every image, new ones too: 1 as in the paper, 2 adds its mirror image, more adds shifted crops.",
            ge=1,
            le=18,
        ),
    ] = 1  # from session 0 on

    def __post_init__(self) -> None:
        """Refuse weights of terms that the mixing does not have.

        Raises:
            UsageError: there is one; the message names the option.
        """
        super().__post_init__()
        if self.kl_weight and self.mixing != "both":
            raise UsageError(f"--kl-weight {self.kl_weight}: it compares both branches; 0 with --mixing {self.mixing}")
        if self.clean_weight and self.mixing == "none":
            raise UsageError(
                f"--clean-weight {self.clean_weight}: with --mixing none all images are unmixed, and --ce-weight is "
                f"theirs; give --clean-weight 0"
            )


def milestones(config: TrainingConfig) -> list[int]:
    """Return the milestones of the schedule multistep, in epochs.

    Raises:
        UsageError: they are no growing numbers of epochs within the training.
    """
    if config.milestones is None:
        return [round(share * config.epochs) for share in DEFAULT_MILESTONES]
    given = config.milestones
    try:
        epochs = [int(each) for each in given.split(",")]
    except ValueError:
        raise UsageError(f"--milestones {quoted(given)}: write epochs with commas, as 60,80") from None
    if not all(a < b for a, b in itertools.pairwise([0, *epochs])):
        raise UsageError(f"--milestones {quoted(given)}: each is an epoch after the one before, from 1 on")
    if config.epochs and epochs[-1] >= config.epochs:
        raise UsageError(f"--milestones {quoted(given)}: the training has {config.epochs} epochs")
    return epochs


MODELS: dict[str, type[PretrainConfig] | type[DistillConfig]] = {"pretrain": PretrainConfig, "distill": DistillConfig}
Config = TypeVar("Config", PretrainConfig, DistillConfig)
AnyConfig = TypeVar("AnyConfig", PretrainConfig, DistillConfig, ImageChoice)
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class TrainingOption:
    """An option of a configuration, as the command line, Python and a file know it."""

    name: str
    type: Any  # of a value that is given
    optional: bool  # whether None is a value, too
    default: Any  # dataclasses.MISSING if there is none
    option: Option

    @property
    def choices(self) -> tuple[str, ...]:
        """The names to choose from, if the option is a choice."""
        return get_args(self.type) if self.option.table is None else self.option.table.names()

    @property
    def help(self) -> str:
        """The line of help, with the choices in it."""
        choices = one_of(get_args(self.type)) if self.option.table is None else self.option.table.listed()
        return self.option.help.replace("{choices}", choices)

    @property
    def shown_default(self) -> str:
        """The default as a help page shows it; empty if there is none."""
        if self.option.default is not None or self.default is dataclasses.MISSING:
            return self.option.default or ""
        return as_word(self.default)

    def check(self, value: object) -> Any:
        """Return the value, or the same number as a float where one is wanted.

        Raises:
            UsageError: the option cannot have it.
        """
        from pydantic import ValidationError

        if value is None and self.optional:
            return None
        try:
            checked = self._validator.validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{flag(self.name)} {shown(value)}: {error.errors()[0]['msg'].lower()}") from None
        if self.option.table is not None:
            self.option.table[checked]
        return checked

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value, without the names in a table."""
        found: dict[str, Any] = self._validator.json_schema()
        return found

    @property
    def _validator(self) -> Any:
        return _validator(self.type, **{name: getattr(self.option, name) for name in ("gt", "ge", "lt", "le")})


@lru_cache
def _validator(kind: Any, **bounds: float | None) -> Any:
    """Return the validator of a type within bounds."""
    from pydantic import ConfigDict, Field, TypeAdapter

    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    if kind is float and not given.keys() & {"lt", "le"}:
        given["allow_inf_nan"] = False
    # Strict, or a file's true would be one epoch.
    return TypeAdapter(Annotated[kind, Field(**given)], config=ConfigDict(strict=True))


def options_of(
    model: type[PretrainConfig | DistillConfig | ImageChoice | ProtocolOptions],
) -> dict[str, TrainingOption]:
    """Return the options of a configuration by name, those of its own class first."""
    hints = get_type_hints(model, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    found = {}
    for name in dict.fromkeys(name for each in model.__mro__ for name in inspect.get_annotations(each)):
        kind, option = get_args(hints[name])
        optional = NoneType in get_args(kind)
        plain = next(each for each in get_args(kind) if each is not NoneType) if optional else kind
        found[name] = TrainingOption(name, plain, optional, defaults[name], option)
    return found


def as_word(value: object) -> str:
    """Return a default as a help page shows it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def flag(name: str) -> str:
    """Return what a field is called on the command line: `--batch-size` of `batch_size`."""
    return "--" + name.replace("_", "-")


def takes_options(model: type[PretrainConfig | DistillConfig]) -> Callable[[Function], Function]:
    """Decorate a function of `**options` so that its signature and its help list the options of a configuration."""
    options = options_of(model).values()
    heading = "Options, each as the file, the recipe or the data set has it if it is left out or None:"
    lines = [heading, *(f"    {option.name}: {option.help}" for option in options)]
    parameters = {option.name: (option.type | None, None) for option in options}

    def decorate(function: Function) -> Function:
        insert_parameters(function, parameters)
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", *lines])
        return function

    return decorate


def insert_parameters(
    function: Callable[..., Any], parameters: Mapping[str, tuple[Any, Any]], first: bool = False
) -> None:
    """Make a function of `**` show keyword-only parameters in its signature.

    Args:
        function: the function.
        parameters: annotation and default by name.
        first: puts them before the keyword-only parameters that the function declares, instead of after.
    """
    signature = inspect.signature(function)
    declared = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    inserted = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in parameters.items()
    ]
    position = sum(each.kind is not each.KEYWORD_ONLY for each in declared) if first else len(declared)
    declared[position:position] = inserted
    vars(function)["__signature__"] = signature.replace(parameters=declared)


@dataclass(frozen=True)
class OptionsFile:
    """The content of a file of options: a recipe, or a file that is given with --config."""

    data: str | None  # the images, as --data names them
    tables: Mapping[str, Mapping[str, Any]]  # by stage; a stage that the file does not mention has none


NO_OPTIONS = OptionsFile(None, {})


def stage_defaults(model: type[PretrainConfig | DistillConfig], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of one stage from those of a data set, as `resolve` takes them."""
    values = {name: value for name, value in defaults.items() if name in options_of(model)}
    values |= defaults.get(_stage(model), {})
    if "total_epochs" in defaults:
        first = max(1, round(defaults.get("pretrain_share", PRETRAIN_SHARE) * defaults["total_epochs"]))
        values["epochs"] = first if model is PretrainConfig else defaults["total_epochs"] - first
    return values


class Layer(NamedTuple):
    """Values of options of one stage, and the source that they come from."""

    origin: str
    values: Mapping[str, Any]


def resolve(
    model: type[Config],
    defaults: dict[str, Any],
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: OptionsFile = NO_OPTIONS,
    inherited: OptionsFile = NO_OPTIONS,
    init: object = None,
) -> Config:
    """Merge and validate one configuration, see `resolve_with_origins`."""
    return resolve_with_origins(model, defaults, file, options, recipe, inherited, init)[0]


def resolve_with_origins(
    model: type[Config],
    defaults: dict[str, Any],
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: OptionsFile = NO_OPTIONS,
    inherited: OptionsFile = NO_OPTIONS,
    init: object = None,
    seed: int | None = None,
) -> tuple[Config, dict[str, str]]:
    """Merge and validate one configuration.

    The options win over the file, the file over the one that stage 1 was given, this over the recipe, the recipe over
    the defaults of the data set, and these over those of the model.

    Args:
        model: the configuration of a stage.
        defaults: of the data set, for both stages or in a table for one. `total_epochs` are divided between the
            stages, stage 1 taking `pretrain_share` of them.
        file: TOML with a table for each stage, [pretrain] and [distill].
        options: from the command line; None stands for an option that was not given.
        recipe: the recipe that is followed.
        inherited: the file of stage 1, which stage 2 follows.
        init: the weights that stage 1 began from, for stage 2.
        seed: of stage 1, for stage 2.

    Returns:
        the configuration, and the source of each option by its name.

    Raises:
        UsageError: a value does not fit; the message names the option.
    """
    merged = merge(model, layers(model, defaults, file, options, recipe, inherited, seed), init)
    values = {name: value for name, (_, value) in merged.items()}
    settings = validate(model, values, source=str(file) if file else None)
    return settings, {name: merged.get(name, (DEFAULT_ORIGIN,))[0] for name in options_of(model)}


def layers(
    model: type[Config],
    defaults: dict[str, Any],
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: OptionsFile = NO_OPTIONS,
    inherited: OptionsFile = NO_OPTIONS,
    seed: int | None = None,
) -> list[Layer]:
    """Collect the sources of the options of one stage, of which a later one wins; see `resolve_with_origins`.

    Raises:
        UsageError: the file is missing, no TOML, or holds something else; or an option is unknown.
    """
    stage = _stage(model)
    return [
        Layer("data set", stage_defaults(model, defaults)),
        Layer("pretrain", {} if seed is None else {"seed": seed}),
        Layer("recipe", recipe.tables.get(stage, {})),
        Layer("pretrain's file", inherited.tables.get(stage, {})),
        Layer("file", given_options(model, file, {})),
        Layer("command line", given_options(model, None, options or {})),
    ]


def merge(model: type[Config], sources: Sequence[Layer], init: object = None) -> dict[str, tuple[str, Any]]:
    """Merge layers, of which a later one wins, over the defaults of the optimiser that they choose.

    Learning rate and weight decay of a layer go with its optimiser: a later layer with another one drops them. Where no
    layer tells of optimiser or learning rate, weights that stage 1 begins from are trained as TRAINED says.

    Args:
        model: the configuration of a stage.
        sources: the layers.
        init: the weights that stage 1 began from, for stage 2.

    Returns:
        origin and value by the name of the option, for those that are not the model's defaults.
    """
    optimizer = options_of(model)["optimizer"]
    chosen: str = optimizer.default
    merged: dict[str, tuple[str, Any]] = {}
    for origin, values in sources:
        other = optimizer.check(values.get("optimizer", chosen))
        if other != chosen:
            merged = {name: each for name, each in merged.items() if name not in OPTIMIZER_OPTIONS}
        chosen = other
        merged |= {name: (origin, value) for name, value in values.items()}
    begins_trained = merged.get("init", ("", init))[1] not in (None, NO_INIT)
    if begins_trained and not merged.keys() & {"optimizer", "learning_rate"}:
        trained = TRAINED[_stage(model)]
        chosen = trained["optimizer"]
        merged = {**{name: (DEFAULT_ORIGIN, value) for name, value in trained.items()}, **merged}
    own = OPTIMIZERS[chosen].defaults.get(_stage(model), {})
    return {**{name: (DEFAULT_ORIGIN, value) for name, value in own.items()}, **merged}


def checked_tables(file: Path | None) -> dict[str, dict[str, Any]]:
    """Return the tables of a file of options, for both stages, as they are recorded: without folders of this machine.

    Raises:
        UsageError: the file cannot be used, or a value does not fit its option.
    """
    tables = read_options(file).tables if file is not None else {}
    checked = {
        stage: {name: options_of(MODELS[stage])[name].check(value) for name, value in table.items()}
        for stage, table in tables.items()
    }
    for table in checked.values():
        files = {name: table[name] for name in ("init", "class_order", "split") if isinstance(table.get(name), str)}
        table |= {name: Path(value).name for name, value in files.items()}
    return checked


def given_options(model: type[Config], file: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of one stage that a person has set: the options over the file.

    Args:
        model: the configuration of a stage.
        file: as for `resolve_with_origins`.
        options: None stands for an option that was not given.

    Raises:
        UsageError: the file is missing, no TOML, or holds something else; or an option is unknown.
    """
    for name in options:
        _known(options_of(model), name)
    table = dict(read_options(file).tables.get(_stage(model), {})) if file is not None else {}
    return table | {name: value for name, value in options.items() if value is not None}


def recorded_config(model: type[Config], recorded: Mapping[str, Any], source: str) -> Config:
    """Validate the configuration that something was made with.

    Args:
        model: the configuration of a stage.
        recorded: its values as they were written down.
        source: where they were written down, for messages.

    Raises:
        UsageError: it makes no sense.
    """
    return validate(model, dict(recorded), source)


def recorded_choice(recorded: Mapping[str, Any]) -> ImageChoice:
    """Return the choice of images in a recorded configuration, whatever else is recorded.

    Raises:
        UsageError: it makes no sense.
    """
    return validate(ImageChoice, {name: recorded[name] for name in options_of(ImageChoice) if name in recorded})


def _stage(model: type[PretrainConfig | DistillConfig]) -> str:
    return "pretrain" if model is PretrainConfig else "distill"


def validate(model: type[AnyConfig], values: Mapping[str, Any], source: str | None = None) -> AnyConfig:
    """Make a configuration of plain values.

    Raises:
        UsageError: a value does not fit, or a name is unknown; the message names the option.
    """
    options = options_of(model)
    values = {name: _known(options, name, source).check(value) for name, value in values.items()}
    if model is DistillConfig and values.get("mixing", "both") != "both":
        values = {"kl_weight": 0.0} | values
    for name, option in options.items():
        if option.default is dataclasses.MISSING and name not in values:
            raise UsageError(f"{flag(name)} (a table): field required")
    return model(**values)


def _known(options: Mapping[str, TrainingOption], name: str, source: str | None = None) -> TrainingOption:
    """Return an option by its name.

    Raises:
        UsageError: there is none of that name; the message names the nearest one.
    """
    if name not in options:
        where = f"{source}: " if source else ""
        raise UsageError(f"{where}there is no option {quoted(repr(name))}{_nearest(name, options)}")
    return options[name]


def shown(value: object) -> str:
    """Return a value that was given, of whatever kind, as a message can show it."""
    if isinstance(value, dict | list):
        return "(a table)" if isinstance(value, dict) else "(a list)"
    if isinstance(value, int) and value.bit_length() > 80:
        return "(a large number)"  # Python refuses to write very large ones
    return quoted(str(value))


def read_options(file: Path) -> OptionsFile:
    """Read a TOML file: `data`, and a table for each stage.

    Raises:
        UsageError: the file is missing, no TOML, or holds something else.
    """
    try:
        content = tomllib.loads(read_regular(file, FILE_LIMIT).decode())
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # the first of TOML, of UTF-8 and of numbers of thousands of digits
        raise UsageError(f"--config {file}: not TOML ({quoted(str(error))})") from None
    data = content.pop("data", None)
    if not isinstance(data, str | None):
        raise UsageError(f"--config {file}: data {shown(data)}: write the name of a data set or folder in quotes")
    for name, table in content.items():
        if name not in STAGES or not isinstance(table, dict):
            named = quoted(repr(name))
            hint = _nearest(name, STAGES)
            raise UsageError(f"--config {file}: only data, [pretrain] and [distill] are known, not {named}{hint}")
        for option in table:
            _known(options_of(MODELS[name]), option, f"--config {file}: [{name}]")
    return OptionsFile(data, content)


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that names the most similar of some names; empty if none is similar."""
    import difflib

    nearest = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
