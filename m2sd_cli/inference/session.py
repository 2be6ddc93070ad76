"""A session of a run folder, loaded: frozen backbone, the head of all sessions so far, names, transform."""

from dataclasses import dataclass

import torch
from torch import Tensor

from m2sd_cli.checkpoints import BaseCheckpoint, HeldOut, IncrementCheckpoint
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DamagedError, UsageError
from m2sd_cli.inference.features import embed
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.calibration import Confidence, fit_confidence
from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses, build_head, choices
from m2sd_cli.registry import CLASSIFIERS
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, TransformRecord

BEYOND = 1e15  # no network's numbers are as large, and products of smaller ones are finite


def to_transform(record: TransformRecord) -> TestTransform:
    """Make the test transform that a manifest names."""
    return TestTransform(**record.model_dump())


@dataclass(frozen=True)
class SessionModel:
    """A network and its head, with all classes that sessions 0..b have taught."""

    backbone: Backbone  # in eval mode
    means: Tensor  # class means (C, D), in the order of `classes`
    head: Head  # features to logits
    classifier: str  # the name of that head
    confidence: Confidence  # of its answers
    classes: list[str]
    sizes: list[int]  # classes known after session 0, 1, ..., b
    transform: TestTransform
    record: BackboneRecord
    precision: str

    def embed(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) uint8 after the test transform to features (B, D) float32."""
        return embed(self.backbone, pixels, self.transform, self.precision)

    def classify(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, C)."""
        logits: Tensor = self.head(features)
        return logits


def choose_classifier(run: RunFolder, chain: ChainSummary, name: str | None) -> str:
    """Choose the classifier that a chain answers with: the one that is asked for, else that of its last session.

    Raises:
        UsageError: there is none of that name, or it compares directions and W was trained as a linear one.
        DamagedError: the session names one that this version does not know.
    """
    recorded = chain.last.manifest.classifier
    assert recorded is not None, "every session names one"
    if not name and recorded not in CLASSIFIERS:
        raise run.unknown(chain.last, "classifier", recorded)
    chosen = name or recorded
    require_directions(chosen, chain.base.manifest.backbone.similarity)
    return chosen


def require_directions(name: str, similarity: str) -> None:
    """Refuse a classifier of stage 3 that compares directions where W was not trained to.

    Raises:
        UsageError: it does, or there is none of that name; the message lists the others.
    """
    if CLASSIFIERS[name].cosine_only and similarity != "cosine":
        raise UsageError(
            f"--classifier {name}: it compares directions, and this run was pretrained with --similarity {similarity}; "
            f"choose {', '.join(choices(similarity))}"
        )


def load_session(
    run: RunFolder,
    last: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    classifier: str | None = None,
) -> SessionModel:
    """Load session `last`, the newest by default, with the classes of all sessions up to it.

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
        classifier: to answer with; None for the one that the last session names.

    Raises:
        DamagedError: a checkpoint is damaged, or does not fit its manifest.
        UsageError: the chain cannot answer with that classifier; see `choose_classifier`.
    """
    chosen = choose_classifier(run, chain, classifier)
    record = chain.base.manifest.backbone
    base = BaseCheckpoint.read(run, chain.base)
    increments = [IncrementCheckpoint.read(run, part, record.width) for part in chain.sessions[1:]]
    new = torch.cat([base.means[:0], *(each.means for each in increments)])
    shots = [features for each in increments for features in each.shots]
    file = run.path / chain.base.manifest.checkpoint.file
    try:
        head = build_head(
            chosen, KnownClasses(base.means, new, shots, base.statistics, base.images), record.similarity, record.scale
        )
        confidence = _confidence(head, base.held_out, len(base.means))
    except ValueError as error:
        raise DamagedError(f"{file}: {error}; restore it from a backup") from None
    if any(not tensor.abs().amax() < BEYOND for tensor in head.state_dict().values() if tensor.numel()):
        raise DamagedError(f"{file}: {chosen} makes numbers of it beyond all bounds; restore it from a backup")
    return SessionModel(
        backbone=base.backbone.to(device).to(memory_format=torch.channels_last),
        means=torch.cat([base.means, new]).to(device),
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
    """Fit the confidence in a head's answers to its logits of the base classes alone: no later session changes it.

    Raises:
        ValueError: a logit is not finite.
    """
    if held_out is None:
        return Confidence()
    return fit_confidence(head.first(base)(held_out.features), held_out.labels)
