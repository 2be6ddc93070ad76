"""The tensors of the three kinds of checkpoint: stage 1, the base session, an incremental session.

Each kind is a class, whose `tensors` are the content of its file. No other module knows the names of tensors in a file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from m2sd_cli.errors import DamagedError, UsageError
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.method.base_statistics import DIRECTIONS, BaseStatistics, HeldOut
from m2sd_cli.runs.chain import ChainReader
from m2sd_cli.runs.manifest import Manifest, ManifestSummary
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.tensors import TensorSpec, find_mismatch, tensor_specs
from m2sd_cli.tables import BACKBONES

BACKBONE: Final = "backbone."  # a prefix, as STATISTICS
CLASSIFIER: Final = "classifier.weight"
MEANS: Final = "class_means"
STATISTICS: Final = "statistics."
HELD_OUT: Final = "held_out_features"
HELD_OUT_LABELS: Final = "held_out_labels"
SHOTS: Final = "shot_features"
INITIALISERS = {torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_}


@dataclass(frozen=True)
class PretrainCheckpoint:
    """The network that stage 1 has trained on C base classes; its features have width D."""

    backbone: Backbone
    weight: Tensor  # W (C, D)

    def tensors(self) -> dict[str, Tensor]:
        """Return the content of the file."""
        return {**_prefixed(BACKBONE, self.backbone.state_dict()), CLASSIFIER: self.weight}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], backbone: Backbone, classes: int) -> Self:
        """Check the content of a file and load it into a backbone, which comes out in eval mode.

        Raises:
            ValueError: the file holds something else; the message names the tensor.
        """
        weight = TensorSpec((classes, backbone.width), torch.float32)
        _require(tensors, {**tensor_specs(backbone.state_dict(), BACKBONE), CLASSIFIER: weight})
        _load(backbone, tensors)
        return cls(backbone, tensors[CLASSIFIER])

    @classmethod
    def read(cls, run: ChainReader, stored: StoredManifest) -> Self:
        """Read the checkpoint of stage 1, to the CPU.

        Raises:
            DamagedError: the file is damaged, or does not fit its manifest.
        """
        backbone = build_recorded(run, stored)
        with _refused_as_damaged(run, stored.manifest):
            return cls.from_tensors(run.tensors(stored), backbone, len(stored.manifest.classes))


@dataclass(frozen=True)
class BaseCheckpoint:
    """The frozen network of a run, and the tensors of its C base classes that stage 3 needs."""

    backbone: Backbone
    means: Tensor  # class means (C, D)
    statistics: BaseStatistics
    held_out: HeldOut | None = None  # None if all images were trained on
    images: Sequence[int] = ()  # the number of each class, which the manifest has and not the file

    def tensors(self) -> dict[str, Tensor]:
        """Return the content of the file."""
        tensors = {**network_tensors(self.backbone, self.means), **_prefixed(STATISTICS, self.statistics.tensors())}
        if self.held_out is not None:
            tensors |= {HELD_OUT: self.held_out.features, HELD_OUT_LABELS: self.held_out.labels}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], backbone: Backbone, classes: int) -> Self:
        """Check the content of a file and load it into a backbone, which comes out in eval mode.

        Raises:
            ValueError: the file holds something else; the message names the tensor.
        """
        width = backbone.session_width
        specs = {
            **tensor_specs(backbone.state_dict(), BACKBONE),
            MEANS: TensorSpec((classes, width), torch.float32),
            **_statistics_specs(tensors, classes, width),
            **_held_out_specs(tensors, width),
        }
        _require(tensors, specs)
        held_out = HeldOut(tensors[HELD_OUT], tensors[HELD_OUT_LABELS]) if HELD_OUT in specs else None
        if held_out is not None and not bool(((held_out.labels >= 0) & (held_out.labels < classes)).all()):
            raise ValueError(f"{HELD_OUT_LABELS} names a class that is not there")
        _load(backbone, tensors)
        names = [each.name for each in fields(BaseStatistics) if STATISTICS + each.name in tensors]
        statistics = BaseStatistics(**{name: tensors[STATISTICS + name] for name in names})
        return cls(backbone, tensors[MEANS], statistics, held_out)

    @classmethod
    def read(cls, run: ChainReader, stored: StoredManifest) -> Self:
        """Read the checkpoint of the base session, to the CPU.

        Raises:
            DamagedError: the file is damaged, or does not fit its manifest.
        """
        backbone = build_recorded(run, stored)
        with _refused_as_damaged(run, stored.manifest):
            checkpoint = cls.from_tensors(run.tensors(stored), backbone, len(stored.manifest.classes))
        return replace(checkpoint, images=[each.shots for each in stored.manifest.classes])


@dataclass(frozen=True)
class IncrementCheckpoint:
    """The tensors of the N classes that an incremental session teaches."""

    means: Tensor  # class means (N, D)
    shots: Sequence[Tensor]  # of each class, the features (K, D) of all views of its shots

    def tensors(self) -> dict[str, Tensor]:
        """Return the content of the file."""
        return {MEANS: self.means, SHOTS: torch.cat([*self.shots])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], counts: Sequence[int], width: int) -> Self:
        """Check the content of a file and take it apart.

        Args:
            counts: of each class, the number of features of its shots.
            width: D.

        Raises:
            ValueError: the file holds something else; the message names the tensor.
        """
        specs = {
            MEANS: TensorSpec((len(counts), width), torch.float32),
            SHOTS: TensorSpec((sum(counts), width), torch.float32),
        }
        _require(tensors, specs)
        return cls(tensors[MEANS], torch.split(tensors[SHOTS], [*counts]))

    @classmethod
    def read(cls, run: ChainReader, part: Manifest | ManifestSummary, width: int) -> Self:
        """Read the checkpoint of an incremental session, to the CPU.

        Raises:
            DamagedError: the file is damaged, or does not fit its manifest.
        """
        counts = [each.shots * (part.views or 0) for each in part.classes]
        if not all(counts):
            raise DamagedError(
                f"{run.path / part.checkpoint.file}: its manifest names no shots; restore it from a backup"
            )
        with _refused_as_damaged(run, part):
            return cls.from_tensors(run.tensors(part), counts, width)


def network_tensors(backbone: Backbone, means: Tensor) -> dict[str, Tensor]:
    """Name the tensors of a backbone and the class means (C, D) as in checkpoints and exported files."""
    return {**_prefixed(BACKBONE, backbone.state_dict()), MEANS: means}


class SkippedInitialisation(TorchFunctionMode):
    """A mode in which new parameters keep whatever their memory holds, since they are loaded next.

    Another tensor may be a constant of the network, which no file has. Drawing weights takes about as long as
    predicting an image. The meta device would do, too, but takes seconds to import.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch; one that initialises a parameter returns it as it is."""
        named = kwargs or {}
        if func in INITIALISERS:
            tensor = args[0] if args else named["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **named)


def build_recorded(run: ChainReader, stored: StoredManifest) -> Backbone:
    """Build the backbone that a manifest names, its weights undefined.

    Raises:
        DamagedError: this version knows no backbone of that name, or one of another width.
        M2sdError: the package that has the backbone is not installed.
    """
    record = stored.manifest.backbone
    if record.name not in BACKBONES:
        raise run.unknown(stored, "backbone", record.name)
    file = run.path / stored.record.file
    try:
        with SkippedInitialisation():
            backbone = build_backbone(record.name, stored.manifest.transform.crop)
    except UsageError as error:
        raise DamagedError(f"{file}: its network cannot be built: {error}") from None
    backbone.pooled_levels = record.levels
    BACKBONES.tell_changed(record.name, stored.manifest.plugins)
    if record.width != backbone.width:
        raise DamagedError(
            f"{file}: {record.width} is not the feature width of {record.name}; restore it from a backup"
        )
    return backbone


def _load(backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    backbone.load_state_dict({name: tensors[BACKBONE + name] for name in backbone.state_dict()})
    backbone.eval()


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _statistics_specs(tensors: Mapping[str, Tensor], classes: int, width: int) -> dict[str, TensorSpec]:
    """Specify the base statistics; the file's projection decides how many random features there are.

    Files of version 0.2.0, and of too many wide classes, have no covariance of each class.
    """
    projection = tensors.get(STATISTICS + "projection")
    size = projection.shape[1] if projection is not None and projection.dim() == 2 else 0
    shapes = {
        "power": (1,),
        "power_means": (classes, width),
        "power_covariance": (width, width),
        "projection": (width, max(size, 1)),
        "random_means": (classes, size),
        "random_gram": (size, size),
    }
    if STATISTICS + "directions" in tensors or STATISTICS + "class_covariances" in tensors:
        kept = min(width, DIRECTIONS)
        shapes |= {"directions": (width, kept), "class_covariances": (classes, kept, kept)}
    return {STATISTICS + name: TensorSpec(shape, torch.float32) for name, shape in shapes.items()}


def _held_out_specs(tensors: Mapping[str, Tensor], width: int) -> dict[str, TensorSpec]:
    """Specify the held-out images: none, or as many as the file has labels."""
    if HELD_OUT not in tensors and HELD_OUT_LABELS not in tensors:
        return {}
    images = max(tensors[HELD_OUT_LABELS].numel(), 1) if HELD_OUT_LABELS in tensors else 1
    return {
        HELD_OUT: TensorSpec((images, width), torch.float32),
        HELD_OUT_LABELS: TensorSpec((images,), torch.int64),
    }


def _require(tensors: Mapping[str, Tensor], specs: Mapping[str, TensorSpec]) -> None:
    mismatch = find_mismatch(tensors, specs)
    if mismatch is not None:
        raise ValueError(mismatch)


@contextmanager
def _refused_as_damaged(run: ChainReader, part: Manifest | ManifestSummary) -> Iterator[None]:
    """Turn the ValueError of a file's content into a DamagedError that names the file."""
    try:
        yield
    except ValueError as error:
        file = run.path / part.checkpoint.file
        raise DamagedError(
            f"{file}: not the checkpoint that its manifest names: {error}; restore it from a backup"
        ) from None
