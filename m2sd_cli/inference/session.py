"""A session of a run folder, loaded: frozen backbone, the head of all sessions so far, names, transform."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DamagedError, RunError, UsageError
from m2sd_cli.inference.features import embed
from m2sd_cli.method.backbones import ARCHITECTURES, Backbone, build_backbone
from m2sd_cli.method.base_statistics import BaseStatistics
from m2sd_cli.method.calibration import Confidence, fit_confidence
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import COSINE_ONLY, OF_STATISTICS, KnownClasses, build_head, choices
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, Manifest, ManifestSummary, TransformRecord
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.tensors import TensorSpec, find_mismatch, tensor_specs

BACKBONE_PREFIX = "backbone."
STATISTICS_PREFIX = "statistics."
MEANS = "class_means"
SHOTS = "shot_features"
BEYOND = 1e15  # no network's numbers are as large, and products of smaller ones are finite
HELD_OUT = "held_out_features"
HELD_OUT_LABELS = "held_out_labels"
DRAWING = {torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_}


def to_transform(record: TransformRecord) -> TestTransform:
    """The test transform that a manifest names."""
    return TestTransform(**record.model_dump())


@dataclass(frozen=True)
class SessionModel:
    """What session b knows."""

    backbone: Backbone  # in eval mode
    means: Tensor  # class means (C, D), in the order of `classes`
    head: Head  # features to logits
    classifier: str  # which head that is
    confidence: Confidence  # of its answers
    classes: list[str]
    sizes: list[int]  # classes known after session 0, 1, ..., b
    transform: TestTransform
    record: BackboneRecord
    precision: str

    def embed(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) uint8 after the test transform to features (B, D) float32."""
        return embed(self.backbone, pixels, self.transform, self.precision)

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        logits: Tensor = self.head(features)
        return logits


class HeldOut(NamedTuple):
    """Base images that were not trained on."""

    features: Tensor  # (N, D)
    labels: Tensor  # (N,) in [0, C)


class Checkpoint(NamedTuple):
    """What stage 1 or the base session left, on the CPU."""

    backbone: Backbone  # in eval mode
    rows: Tensor  # one row a class (C, D)
    statistics: BaseStatistics | None  # of the base session, unless an earlier version made it
    held_out: HeldOut | None  # of the base session, if there are such images


def backbone_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's parameters and buffers as a checkpoint names them."""
    return {BACKBONE_PREFIX + name: tensor for name, tensor in backbone.state_dict().items()}


class Undrawn(TorchFunctionMode):
    """Leaves parameters that are about to be loaded uninitialised: drawing them takes as long as predicting an image.

    The meta device would do, too, but it imports for two seconds.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See torch."""
        given = kwargs or {}
        if func in DRAWING:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def statistics_tensors(statistics: BaseStatistics) -> dict[str, Tensor]:
    """The base statistics as a checkpoint names them."""
    return {STATISTICS_PREFIX + name: tensor for name, tensor in statistics.tensors().items()}


def load_checkpoint(run: RunFolder, stored: StoredManifest, rows: str) -> Checkpoint:
    """The checkpoint of stage 1 or of the base session.

    Args:
        run, link: whose checkpoint.
        rows: what the checkpoint calls the rows.

    Raises:
        DamagedError: the checkpoint does not hold just this, of the backbone that its manifest names.
    """
    manifest = stored.manifest
    record, classes = manifest.backbone, len(manifest.classes)
    if record.name not in ARCHITECTURES:
        raise DamagedError(f"{run.path / stored.record.file}: this version knows no backbone {record.name!r}")
    if record.width != ARCHITECTURES[record.name].widths[-1]:
        raise DamagedError(f"{run.path / stored.record.file}: {record.width} is not the feature width of {record.name}")
    with Undrawn():
        backbone = build_backbone(record.name)
    own = backbone.state_dict()
    wanted = {**tensor_specs(own, BACKBONE_PREFIX), rows: ((classes, record.width), torch.float32)}
    tensors = run.tensors(manifest)
    counted = manifest.kind == "base" and manifest.holds_statistics
    if counted:
        wanted |= _statistics_forms(tensors, classes, record.width)
        wanted |= _held_out_forms(tensors, record.width)
    _require(run, manifest, tensors, wanted)
    held_out = HeldOut(tensors[HELD_OUT], tensors[HELD_OUT_LABELS]) if HELD_OUT in wanted else None
    if held_out is not None and not bool(((held_out.labels >= 0) & (held_out.labels < classes)).all()):
        raise _foreign(run, manifest, f"{HELD_OUT_LABELS} names a class that is not there")
    backbone.load_state_dict({name: tensors[BACKBONE_PREFIX + name] for name in own})
    named = (field.name for field in fields(BaseStatistics))
    statistics = BaseStatistics(**{name: tensors[STATISTICS_PREFIX + name] for name in named}) if counted else None
    return Checkpoint(backbone.eval(), tensors[rows], statistics, held_out)


def _statistics_forms(tensors: Mapping[str, Tensor], classes: int, width: int) -> dict[str, TensorSpec]:
    """The base statistics as they have to be; how many random features there are is the projection's to say."""
    projection = tensors.get(STATISTICS_PREFIX + "projection")
    size = projection.shape[1] if projection is not None and projection.dim() == 2 else 0
    shapes = {
        "power": (1,),
        "power_means": (classes, width),
        "power_covariance": (width, width),
        "projection": (width, max(size, 1)),
        "random_means": (classes, size),
        "random_gram": (size, size),
    }
    return {STATISTICS_PREFIX + name: (shape, torch.float32) for name, shape in shapes.items()}


def _held_out_forms(tensors: Mapping[str, Tensor], width: int) -> dict[str, TensorSpec]:
    """What is held of images that were not trained on as it has to be: none, or any number of them."""
    if HELD_OUT not in tensors and HELD_OUT_LABELS not in tensors:
        return {}
    images = max(tensors[HELD_OUT_LABELS].numel(), 1) if HELD_OUT_LABELS in tensors else 1
    return {HELD_OUT: ((images, width), torch.float32), HELD_OUT_LABELS: ((images,), torch.int64)}


def _load_shots(run: RunFolder, part: Manifest | ManifestSummary, width: int) -> tuple[Tensor, list[Tensor]]:
    """The class means (C, D) of an incremental session, and the features (K, D) of each class's shots.

    The features are none if an earlier version made the session.

    Raises:
        DamagedError: it is damaged, or does not hold just this.
    """
    wanted: dict[str, TensorSpec] = {MEANS: ((len(part.classes), width), torch.float32)}
    counts = [each.shots * (part.views or 0) for each in part.classes]
    if part.holds_statistics:
        wanted[SHOTS] = ((sum(counts), width), torch.float32)
        if not all(counts):
            raise DamagedError(f"{run.path / part.checkpoint.file}: its manifest names no shots")
    tensors = run.tensors(part)
    _require(run, part, tensors, wanted)
    return tensors[MEANS], list(torch.split(tensors[SHOTS], counts)) if part.holds_statistics else []


def _require(
    run: RunFolder, part: Manifest | ManifestSummary, tensors: Mapping[str, Tensor], wanted: Mapping[str, TensorSpec]
) -> None:
    """Refuse a checkpoint that does not hold just what its manifest makes one expect.

    Raises:
        DamagedError: it does not.
    """
    wrong = find_mismatch(tensors, wanted)
    if wrong is not None:
        raise _foreign(run, part, wrong)


def _foreign(run: RunFolder, part: Manifest | ManifestSummary, wrong: str) -> DamagedError:
    file = run.path / part.checkpoint.file
    return DamagedError(f"{file}: not the checkpoint that its manifest names: {wrong}; restore it from a backup")


def choose_classifier(run: RunFolder, chain: ChainSummary, name: str | None) -> str:
    """The classifier that a chain answers with: what was asked for, else what its last session names.

    Raises:
        UsageError: there is none of that name, or it compares directions and W was trained as a linear one.
        RunError: sessions that an earlier version made do not hold what it needs.
    """
    chosen = name or chain.last.manifest.classifier or "means"
    kind = chain.base.manifest.backbone.classifier
    counted = all(part.holds_statistics for part in chain.sessions)
    possible = choices(kind, counted)
    if chosen in possible:
        return chosen
    if chosen in OF_STATISTICS and not counted:
        raise RunError(
            f"{run.path}: the classifier {chosen} needs more than this run holds, which an earlier version made; "
            f"choose {', '.join(possible)}, or distill again"
        )
    require_directions(chosen, kind, possible)
    raise UsageError(f"--classifier {chosen}: choose {', '.join(possible)}")


def require_directions(name: str, kind: str, possible: Sequence[str]) -> None:
    """Refuse a classifier of stage 3 that compares directions where W was not trained so.

    Raises:
        UsageError: it does; the message has the `possible` ones.
    """
    if name in COSINE_ONLY and kind != "cosine":
        raise UsageError(
            f"--classifier {name}: it compares directions, and this run was pretrained with a {kind} classifier; "
            f"choose {', '.join(possible)}"
        )


def load_session(
    run: RunFolder,
    last: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    classifier: str | None = None,
) -> SessionModel:
    """Load session `last`, the newest by default, with what all sessions up to it have taught.

    Raises:
        RunError: there is no such session, or a file of the chain is damaged.
        UsageError: the chain cannot answer with that classifier; see `choose_classifier`.
    """
    return load_chain(run, run.summary(last), device, precision, classifier)


def load_chain(
    run: RunFolder,
    chain: ChainSummary,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    classifier: str | None = None,
) -> SessionModel:
    """Load the last session of a chain whose manifests were read already.

    Args:
        run, chain: which.
        device, precision: to compute in.
        classifier: to answer with; None for the one that the last session names.

    Raises:
        DamagedError: a checkpoint is damaged, or does not fit its manifest.
        UsageError, RunError: see `choose_classifier`.
    """
    chosen = choose_classifier(run, chain, classifier)
    record = chain.base.manifest.backbone
    backbone, base, statistics, held_out = load_checkpoint(run, chain.base, MEANS)
    means, shots = [base], []
    for part in chain.sessions[1:]:
        own, features = _load_shots(run, part, record.width)
        means.append(own)
        shots += features
    every = torch.cat(means)
    file = run.path / chain.base.manifest.checkpoint.file
    taught = KnownClasses(base, every[len(base) :], shots, statistics)
    try:
        head = build_head(chosen, taught, record.classifier, record.scale)
        confidence = _confidence(head, held_out, len(base))
    except ValueError as error:
        raise DamagedError(f"{file}: {error}; restore it from a backup") from None
    if any(not tensor.abs().amax() < BEYOND for tensor in head.state_dict().values() if tensor.numel()):
        raise DamagedError(f"{file}: {chosen} makes numbers of it beyond all bounds; restore it from a backup")
    return SessionModel(
        backbone=backbone.to(device).to(memory_format=torch.channels_last),
        means=every.to(device),
        head=head.to(device).eval(),
        classifier=chosen,
        confidence=confidence,
        classes=[each.name for part in chain.sessions for each in part.classes],
        sizes=[part.classes_so_far for part in chain.sessions],
        transform=to_transform(chain.base.manifest.transform),
        record=record,
        precision=precision,
    )


@torch.inference_mode()
def _confidence(head: Head, held_out: HeldOut | None, base: int) -> Confidence:
    """Of the answers of a head, fitted to its logits of the base classes alone: no later session changes it.

    Raises:
        ValueError: a logit is not finite.
    """
    if held_out is None:
        return Confidence()
    return fit_confidence(head.first(base)(held_out.features), held_out.labels)
