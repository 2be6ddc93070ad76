"""What can be configured, validated; merged from data set, recipe, file and command line in this one place."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted, read_regular

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Share = Annotated[float, Field(ge=0, le=1)]

PRETRAIN_SHARE = 0.2  # of a data set's epochs; the paper's stage 1
STAGES = ("pretrain", "distill")
ONCE = {"pyramid_width": 2}  # what options were before they could be set, where that is not their default
FILE_LIMIT = 2**20  # bytes of a file of options


class TrainingConfig(BaseModel):
    """What both stages share. Field names are the options' names, with underscores."""

    # Strict, or a file's true would be one epoch. Built late, as most commands configure nothing.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    epochs: Annotated[int, Field(ge=0, le=10**9)]
    batch_size: Annotated[int, Field(ge=2, le=10**9)] = 256  # images; the paper's
    learning_rate: Positive = 0.1  # at the start; a cosine takes it to 0
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9  # Nesterov's
    weight_decay: NotNegative = 5e-4
    auto_augment: Literal["none", "cifar10", "imagenet"] = "none"  # AutoAugment's policy for training images
    colour: Share = 0.0  # how far brightness, contrast and saturation of training images vary
    cutout: Share = 0.0  # side of the hole in each training image, as a share of the image's
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class ImageChoice(BaseModel):
    """Which base training images stage 1 is given, and with it every stage. What else a configuration says is ignored,
    so that what it was recorded in need not be of today.
    """

    model_config = ConfigDict(frozen=True, strict=True, defer_build=True)

    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # share of each base class that is never trained on
    images_per_class: Annotated[int, Field(ge=1, le=10**9)] | None = None  # of those that are left, at most; None: all


class PretrainConfig(TrainingConfig, ImageChoice):
    """Stage 1.

    Scale 16 beside 8 and 32, on simulated sessions with `debiased` (ResNet-20, one network each, 10 draws; AVG, HM): of
    50 images a class (60 epochs) 29.8, 24.4 beside 32.9, 22.9 and 28.2, 24.5; of all images (30 epochs) 64.3, 50.6
    beside 64.1, 50.1 at 32. A low scale trades novel classes for base classes.
    """

    epochs: Annotated[int, Field(ge=1, le=10**9)]
    backbone: Literal["resnet20", "resnet18-cifar", "resnet18"] = "resnet18"
    classifier: Literal["cosine", "linear"] = "cosine"
    scale: Positive = 16.0  # of the cosine classifier
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None  # pixels, of a folder's images
    init: str | None = None  # "imagenet", or the name of the file that the backbone began from


class DistillConfig(TrainingConfig):
    """Stage 2. With 0 epochs the base session is made of stage 1 as it is.

    The learning rate is lower than stage 1's because L is a sum of some five terms of a cross-entropy's size. On
    CIFAR-100 (ResNet-20, after 5 epochs of stage 1) the virtual images' cross-entropy over the first 85 steps averaged
    3.8 a branch at 0.03 and 3.5 at 0.01; at 0.1 it was 4.2 over the first epoch, worse than chance.

    A pyramid twice as wide as the network takes a step of ResNet-20 1.5 times as long (bf16, one thread). On simulated
    sessions of 50 images a class it gained nothing that could be told from chance beside clean cross-entropy (2
    networks, 20 draws: AVG 31.4 against 31.2, HM 26.6 against 26.3), and without it 0.9 of AVG and 0.3 of HM (one
    network).
    """

    learning_rate: Positive = 0.02
    mixing: Literal["both", "mixup", "cutmix", "none"] = "both"  # the branches; none: one of clean images
    # FE, or FE without EN, or without BiFPN and then of level 4 alone.
    enhancement: Literal["full", "no-attention", "no-pyramid"] = "full"
    beta: Positive = 1.0  # lambda ~ Beta(beta, beta)
    temperature: Positive = 4.0  # of KL(p_hat, f)
    ce_weight: NotNegative = 1.0  # L_ce^v
    kl_weight: NotNegative = 1.0  # L_KL^v; 0 where there are no two branches
    kd_weight: NotNegative = 1.0  # KL(p_hat, f(x))
    attention_weight: NotNegative = 100.0  # attention transfer
    teacher_weight: NotNegative = 1.0  # cross-entropy of W', which alone teaches FE: kd and attention stop there
    clean_weight: NotNegative = 0.0  # cross-entropy of unmixed images
    pyramid_width: Annotated[int, Field(ge=1, le=8)] = 1  # channels of T_i for each of phi_i
    views: Annotated[int, Field(ge=1, le=18)] = 1  # of every image from session 0 on, see TestTransform
    # Of stage 3, from session 0 on; None for the default.
    classifier: Literal["means", "teen", "fecam", "ranpac", "debiased"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_branch_has_no_pair(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if values.get("mixing", "both") == "both" else {"kl_weight": 0.0} | values

    @field_validator("kl_weight", "clean_weight")
    @classmethod
    def _says_something(cls, weight: float, info: ValidationInfo) -> float:
        mixing = info.data.get("mixing", "both")
        if weight and info.field_name == "kl_weight" and mixing != "both":
            raise PydanticCustomError(
                "branches", "it compares both branches; 0 with --mixing {mixing}", {"mixing": mixing}
            )
        if weight and info.field_name == "clean_weight" and mixing == "none":
            raise PydanticCustomError(
                "branches",
                "with --mixing none all images are unmixed, and --ce-weight is theirs; give --clean-weight 0",
            )
        return weight


Config = TypeVar("Config", PretrainConfig, DistillConfig)


@dataclass(frozen=True)
class OptionsFile:
    """What a file of options says: a recipe, or what is given with --config."""

    data: str | None  # the images, as --data names them
    tables: dict[str, dict[str, Any]]  # of the stages that it says something of


NO_OPTIONS = OptionsFile(None, {})


def resolve(
    model: type[Config],
    defaults: dict[str, Any],
    file: Path | None = None,
    options: dict[str, Any] | None = None,
    recipe: OptionsFile = NO_OPTIONS,
) -> Config:
    """One validated configuration.

    The options win over the file, the file over the recipe, the recipe over the data set's defaults, and these over the
    model's.

    Args:
        model: of which stage.
        defaults: of the data set, for both stages or in a table for one. `total_epochs` are divided between the
            stages, stage 1 taking `pretrain_share` of them.
        file: TOML with a table for each stage, [pretrain] and [distill].
        options: from the command line; None stands for an option that was not given.
        recipe: that is followed.

    Raises:
        UsageError: a value does not fit; the message names the option.
    """
    stage = _stage(model)
    values = {name: value for name, value in defaults.items() if name in model.model_fields}
    values |= defaults.get(stage, {})
    if "total_epochs" in defaults:
        first = max(1, round(defaults.get("pretrain_share", PRETRAIN_SHARE) * defaults["total_epochs"]))
        values["epochs"] = first if model is PretrainConfig else defaults["total_epochs"] - first
    values |= recipe.tables.get(stage, {})
    values |= given_options(model, file, options or {})
    return validate(model, values, source=str(file) if file else None)


def given_options(model: type[Config], file: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """What a person has set for one stage: the options over the file.

    Args:
        model: of which stage.
        file: as for `resolve`.
        options: None stands for an option that was not given.

    Raises:
        UsageError: the file is missing, no TOML, or holds something other than it may.
    """
    table = read_options(file).tables.get(_stage(model), {}) if file is not None else {}
    return table | {name: value for name, value in options.items() if value is not None}


def in_full(model: type[Config], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration, with what the options were that there were not yet when it was written."""
    fields = {name: field for name, field in model.model_fields.items() if not field.is_required()}
    return {name: ONCE.get(name, field.default) for name, field in fields.items()} | dict(recorded)


def recorded_config(model: type[Config], recorded: Mapping[str, Any], source: str) -> Config:
    """The configuration that something was made with, whatever options there were then.

    Args:
        model: of which stage.
        recorded: as it was written down.
        source: where, for messages.

    Raises:
        UsageError: it makes no sense.
    """
    return validate(model, in_full(model, recorded), source)


def _stage(model: type[Config]) -> str:
    return "pretrain" if model is PretrainConfig else "distill"


def validate(model: type[Config], values: dict[str, Any], source: str | None = None) -> Config:
    """Make a configuration of plain values.

    Raises:
        UsageError: a value does not fit, or a name is unknown; the message names the option.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        option = "--" + name.replace("_", "-")
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{source}: there is no option {quoted(repr(name))}") from None
        raise UsageError(f"{option} {shown(first['input'])}: {first['msg'].lower()}") from None


def shown(value: object) -> str:
    """A value that was given, whatever it is, as a message can show it."""
    if isinstance(value, dict | list):
        return "(a table)" if isinstance(value, dict) else "(a list)"
    if isinstance(value, int) and value.bit_length() > 80:
        return "(a large number)"  # Python refuses to write very large ones
    return quoted(str(value))


def read_options(file: Path) -> OptionsFile:
    """A TOML file: `data`, and a table for each stage; what it leaves out it does not set.

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
            raise UsageError(f"--config {file}: only data, [pretrain] and [distill] are known, not {named}")
    return OptionsFile(data, content)
