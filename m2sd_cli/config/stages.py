"""The configurations of stages 1 and 2: every field is an option, with its bounds and its help."""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from m2sd_cli.config.option import MANY, Option, find_option, flag, options_of
from m2sd_cli.config.protocol import ImageChoice, ProtocolOptions
from m2sd_cli.errors import UsageError
from m2sd_cli.method.loss_weights import ATTENTION, LossWeights
from m2sd_cli.reading import quoted
from m2sd_cli.registry import one_of
from m2sd_cli.tables import (
    ALL_BASE_COST,
    BACKBONES,
    BASE_COST,
    CLASSIFIERS,
    DEFAULT_CLASSIFIER,
    OPTIMIZERS,
    SCHEDULES,
    UNTRAINED_CLASSIFIER,
)

STAGES = ("pretrain", "distill")
NO_INIT = "none"
CLASSIFIER_DEFAULT = f"{DEFAULT_CLASSIFIER}, or chosen, mostly {UNTRAINED_CLASSIFIER}, without any training"
SEED = "Same seed: same result, on the same CPU with the same number of threads."
RATE = "Learning rate of the class weights W, after the warm-up."
DEFAULT_MILESTONES = (0.6, 0.8)  # of the epochs
MISSING_TERMS = {  # by mixing, the weights of the terms of L that it does not have
    "mixup": ("kl_weight",),
    "cutmix": ("kl_weight",),
    "none": ("kl_weight", "clean_weight"),
}
ENHANCEMENT_TERMS = ("kd_weight", "attention_weight", "teacher_weight")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options that both stages share."""

    epochs: Annotated[int, Option(help="Epochs of this stage.", ge=1, le=MANY)]
    batch_size: Annotated[int, Option(help="Images of a step, those of all processes together.", ge=2, le=MANY)] = (
        256  # the paper's
    )
    optimizer: Annotated[str, Option(help="{choices}.", table=OPTIMIZERS)] = "sgd"
    learning_rate: Annotated[float, Option(help=RATE, gt=0, default="0.1; adamw: 0.001")] = 0.1
    backbone_rate: Annotated[float, Option(help="Learning rate of the backbone, as a multiple of W's.", gt=0)] = 1.0
    schedule: Annotated[
        str, Option(help="{choices}: the learning rate falls to 0, at milestones, or not.", table=SCHEDULES)
    ] = "cosine"
    milestones: Annotated[
        str | None,
        Option(
            help="Epochs after which multistep lowers the learning rate, such as 60,80.",
            default="60 % and 80 % of --epochs",
        ),
    ] = None
    gamma: Annotated[float, Option(help="Factor of the learning rate at each milestone.", gt=0, lt=1)] = 0.1
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
        float,
        Option(
            help="Cut a square out of each training image; its side is this share of the image's, 0 to 1.", ge=0, le=1
        ),
    ] = 0.0
    seed: Annotated[int, Option(help=SEED, ge=0, lt=2**63)] = 0

    def __post_init__(self) -> None:
        """Refuse a schedule that does not fit the epochs.

        Raises:
            UsageError: it does not fit them; the message names the option.
        """
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"--warmup-epochs {self.warmup_epochs:g}: the stage has {self.epochs} epochs; give fewer, or more "
                f"--epochs"
            )
        if self.milestones is not None and not SCHEDULES[self.schedule].milestones:
            raise UsageError(
                f"--milestones {quoted(self.milestones)}: --schedule {self.schedule} has none; leave them out, or give "
                f"--schedule {one_of([name for name, entry in SCHEDULES.entries.items() if entry.milestones])}"
            )
        milestones(self)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig, ImageChoice, ProtocolOptions):
    """The options of stage 1. With 0 epochs the network keeps the weights that it begins from."""

    epochs: Annotated[
        int, Option(help="Epochs of this stage; 0 leaves the weights of --init as they are.", ge=0, le=MANY)
    ]
    optimizer: Annotated[
        str, Option(help="{choices}.", table=OPTIMIZERS, default="sgd; adamw with --init and no learning rate")
    ] = "sgd"
    backbone_rate: Annotated[
        float,
        Option(
            help="Learning rate of the backbone, as a multiple of W's.",
            gt=0,
            default="1; 0.1 where adamw is the default",
        ),
    ] = 1.0
    backbone: Annotated[str, Option(help="{choices}.", table=BACKBONES, symbol="φ")] = "resnet18"
    similarity: Annotated[
        Literal["cosine", "linear"],
        Option(
            help="How features are compared with the weights of classes: {choices}.",
            aliases=("classifier",),
            symbol="f(x) = Wᵀφ(x)",
        ),
    ] = "cosine"
    # A lower scale helps base classes, and costs novel ones.
    scale: Annotated[float, Option(help="Factor of the cosine.", gt=0)] = 16.0
    closeness_weight: Annotated[
        float,
        Option(help="Weight of the mean cosine of features of different classes, which is taken from the loss.", ge=0),
    ] = 0.0
    image_size: Annotated[
        int | None, Option(help="Side of the images in pixels, for a folder.", ge=8, le=4096, default="224")
    ] = None
    split: Annotated[
        str | None,
        Option(help="TOML file that lists the base, session and test images of a folder.", default="none"),
    ] = None  # a recorded configuration has the name of a file without its folder
    transform: Annotated[
        str | None,
        Option(
            help="Prepare the photos of a folder as the images of this built-in data set, such as cifar100.",
            default="none",
        ),
    ] = None
    init: Annotated[
        str | None,
        Option(
            help="Weights to begin from: imagenet, a file (.safetensors, .pth), timm's local-dir:DIR, or none.",
            default="none",
        ),
    ] = None  # a recorded configuration has the name of a file without its folder

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
        str,
        Option(help="{choices}.", table=OPTIMIZERS, default="sgd; adamw after --init, with no learning rate"),
    ] = "sgd"
    learning_rate: Annotated[float, Option(help=RATE, gt=0, default="0.02; adamw: 0.0002")] = 0.02
    mixing: Annotated[
        Literal["both", "mixup", "cutmix", "none"],
        Option(help="both, mixup or cutmix; none: unmixed images.", symbol="x_I, x_II"),
    ] = "both"
    enhancement: Annotated[
        Literal["full", "no-attention", "no-pyramid"],
        Option(
            help="Feature enhancement, if its terms have weights: {choices}. To name one gives them the usual ones.",
            symbol="FE",
        ),
    ] = "full"
    beta: Annotated[
        float, Option(help="a of the share lambda ~ Beta(a, a) that one image has in a mixed one.", gt=0, symbol="λ")
    ] = 1.0
    temperature: Annotated[float, Option(help="Temperature of the softmax in the distillation.", gt=0)] = (
        4.0  # KL(p_hat, f)
    )
    ce_weight: Annotated[float, Option(help="Weight of the cross-entropy of mixed images.", ge=0, symbol="L_ce^v")] = (
        LossWeights.ce
    )  # L_ce^v
    # L_KL^v; 0 by default where there is one branch.
    kl_weight: Annotated[
        float, Option(help="Weight of the symmetric KL between mixup and CutMix.", ge=0, symbol="L_KL^v")
    ] = LossWeights.kl
    kd_weight: Annotated[
        float, Option(help="Weight of the distillation from the enhanced features.", ge=0, symbol="KL(p̂, f(x)) in L_AT")
    ] = LossWeights.kd
    attention_weight: Annotated[
        float,
        Option(
            help="Weight of the attention transfer.",
            ge=0,
            default=", or ".join(f"{weight:g} with {name}" for name, weight in ATTENTION.items()),
            symbol="Σ ‖at(T_i) - at(φ_i(x))‖² in L_AT",
        ),
    ] = LossWeights.attention
    attention_reduction: Annotated[
        Literal["mean", "sum"],
        Option(
            help="The squares of the attention transfer over a map: their mean, or their sum as in the paper.",
            symbol="‖·‖² there",
        ),
    ] = "mean"
    # W' alone teaches FE: kd and attention stop there.
    teacher_weight: Annotated[
        float,
        Option(
            help="Weight of the cross-entropy of the teacher W', the only term that trains the enhancement.",
            ge=0,
            symbol="W'",
        ),
    ] = LossWeights.teacher
    clean_weight: Annotated[
        float, Option(help="Weight of the cross-entropy of unmixed images, which the paper does not have.", ge=0)
    ] = LossWeights.clean
    # Channels of T_i for each of phi_i.
    pyramid_width: Annotated[
        int, Option(help="Channels of the pyramid for each channel of the network.", ge=1, le=8, symbol="T_i")
    ] = 1
    classifier: Annotated[
        str | None,
        Option(
            help="Classifier of all sessions from 0 on: {choices}.",
            table=CLASSIFIERS,
            default=CLASSIFIER_DEFAULT,
            symbol="w_i",
        ),
    ] = None  # of stage 3, from session 0 on
    base_cost: Annotated[
        float | None,
        Option(
            help="Of debiased, quadratic: points of base accuracy one new class alone may take, on held-out images.",
            ge=0,
            le=100,
            default=f"{ALL_BASE_COST:g} / number of taught classes, at most {BASE_COST:g}; without held-out images a "
            "fixed share of the distance between class means",
        ),
    ] = None
    seed: Annotated[int, Option(help=SEED, ge=0, lt=2**63, default="pretrain's")] = 0
    views: Annotated[
        int,
        Option(
            help="Views of an image that are averaged: 1 as in the paper, 2 adds its mirror image, more add crops.",
            ge=1,
            le=18,
        ),
    ] = 1  # from session 0 on
    levels: Annotated[
        int,
        Option(
            help="Last maps of the network whose means side by side are the feature of an image: 1 as in the paper.",
            ge=1,
            le=4,
            symbol="φ(x)",
        ),
    ] = 1  # from session 0 on

    def __post_init__(self) -> None:
        """Refuse weights of terms that the mixing does not have.

        Raises:
            UsageError: there is such a weight; the message names the option.
        """
        super().__post_init__()
        if self.kl_weight and self.mixing != "both":
            raise UsageError(
                f"--kl-weight {self.kl_weight}: it compares mixup with CutMix, and --mixing {self.mixing} has not "
                f"both; give --kl-weight 0"
            )
        if self.clean_weight and self.mixing == "none":
            raise UsageError(
                f"--clean-weight {self.clean_weight}: with --mixing none all images are unmixed, and --ce-weight is "
                f"theirs; give --clean-weight 0"
            )


def milestones(config: TrainingConfig) -> list[int]:
    """Return the milestones of the schedule multistep, in epochs.

    Raises:
        UsageError: the option is no list of ascending epochs within the training.
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
        raise UsageError(
            f"--milestones {quoted(given)}: the stage has {config.epochs} epochs; name earlier ones, or give more "
            f"--epochs"
        )
    return epochs


MODELS: dict[str, type[PretrainConfig] | type[DistillConfig]] = {"pretrain": PretrainConfig, "distill": DistillConfig}
Config = TypeVar("Config", PretrainConfig, DistillConfig)
AnyConfig = TypeVar("AnyConfig", PretrainConfig, DistillConfig, ImageChoice)


def stage_of(model: type[PretrainConfig | DistillConfig]) -> str:
    """Return the name of the stage that a configuration is of."""
    return "pretrain" if model is PretrainConfig else "distill"


def validate(model: type[AnyConfig], values: Mapping[str, Any], source: str | None = None) -> AnyConfig:
    """Make a configuration of plain values.

    Raises:
        UsageError: a value does not fit, or a name is unknown; the message names the option.
    """
    options = options_of(model)
    values = {name: find_option(options, name, source).check(value) for name, value in values.items()}
    if model is DistillConfig and values.get("mixing", "both") != "both":
        values = {"kl_weight": 0.0} | values
    if model is DistillConfig and "attention_reduction" in values:
        values = {"attention_weight": ATTENTION[values["attention_reduction"]]} | values
    for name, option in options.items():
        if option.default is dataclasses.MISSING and name not in values:
            raise UsageError(f"{flag(name)} is missing")
    return model(**values)


def recorded_config(model: type[Config], recorded: Mapping[str, Any], source: str) -> Config:
    """Validate the recorded configuration of a stage.

    Args:
        model: the configuration of the stage.
        recorded: its values by name.
        source: the file of the record, for messages.

    Raises:
        UsageError: a value does not fit; the message names the option.
    """
    return validate(model, dict(recorded), source)


def recorded_choice(recorded: Mapping[str, Any]) -> ImageChoice:
    """Return the choice of images in a recorded configuration; other recorded options are ignored.

    Raises:
        UsageError: a value does not fit; the message names the option.
    """
    return validate(ImageChoice, {name: recorded[name] for name in options_of(ImageChoice) if name in recorded})
