"""A session of a run folder, loaded: frozen backbone, the head of all sessions so far, names, transform."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.names import class_name, name_key
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DamagedError
from m2sd_cli.inference.classifier import choose_base_cost, choose_classifier, require_covariances
from m2sd_cli.inference.features import embed
from m2sd_cli.inference.known import known_classes, read_later
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.base_statistics import HeldOut
from m2sd_cli.method.calibration import Confidence, fit_confidence
from m2sd_cli.method.familiarity import Likeness, build_likeness
from m2sd_cli.method.heads import AnyHead
from m2sd_cli.method.stage3 import answer, build_head, choices
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.classes import ChainClasses, TaughtClass
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, TransformRecord
from m2sd_cli.tables import CLASSIFIERS

CUTS = ("extend", "forget")  # kinds of sessions that change the row of an earlier class, or remove it
BEYOND = 1e15  # no network has numbers as large, and products of smaller ones are finite


def to_transform(record: TransformRecord) -> TestTransform:
    """Make the test transform of its record in a manifest."""
    return TestTransform(**record.model_dump())


@dataclass(frozen=True)
class SessionModel:
    """A network and its head, with all classes that sessions 0..b have taught and not forgotten.

    It answers for each of the sessions `first`..b, which knows the first of the classes alone: these sessions only add
    classes. In a chain without extended and forgotten classes they are all sessions.
    """

    backbone: Backbone  # in eval mode
    means: Tensor  # class means (C, D), in the order of `classes`
    head: AnyHead  # features to logits
    classifier: str  # the name of the head
    by_class: bool  # True if session 0 keeps the covariance of each base class
    score: str  # the name of the score that tells unknown images
    familiarity: Likeness | None  # features to the likeness to each class; None if the logits are the likeness
    confidence: Confidence  # in the answers
    classes: list[str]
    base: int  # the number of base classes among them
    first: int
    sizes: list[int]  # classes known after session `first`, ..., b
    taught: list[int]  # the session that taught each of `classes` first
    indices: list[int]  # of `classes` in the chain, ascending; those of forgotten classes are missing
    names: list[tuple[str, int]]  # all names of classes, earlier and later ones, too, with their places in `classes`
    transform: TestTransform
    record: BackboneRecord
    precision: str

    @property
    def session(self) -> int:
        """The number b of the last session."""
        return self.first + len(self.sizes) - 1

    @cached_property
    def classifiers(self) -> list[str]:
        """The names of all classifiers that the chain can answer with; for them every package of one is imported."""
        return choices(self.record.similarity, self.by_class)

    def places(self) -> dict[str, int]:
        """Return the place in `classes` of every name of a class, also in Unicode's composed form."""
        # A data set of another package may name a class in another form than a folder does.
        return {class_name(name): place for name, place in self.names} | dict(self.names)

    def find(self, names: Sequence[str]) -> Tensor:
        """Return the place of the class of each name, which case and spaces do not tell apart; -1 for no class."""
        places = self.places()
        by_key = {name_key(name): place for name, place in places.items()}
        found = [places.get(name, by_key.get(name_key(name), -1)) for name in names]
        return torch.tensor(found, dtype=torch.int64)

    def embed(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) uint8 after the test transform to features (B, D) float32."""
        return embed(self._network, pixels, self.transform, self.precision)

    @cached_property
    def _network(self) -> Backbone:
        return self.backbone.for_inference()

    def classify(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, C).

        Raises:
            M2sdError: the classifier is of another package, and fails.
        """
        with CLASSIFIERS.blamed(self.classifier):
            logits: Tensor = self.head(features)
        return logits

    def recognise(self, features: Tensor, logits: Tensor) -> Tensor:
        """Map features (B, D) and their logits (B, C) to the likeness to each class, (B, C)."""
        return likeness(self.familiarity, features, logits)


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
    return _load(run, chain, [_cuts(chain)[-1]], device, precision, classifier, None)[0]


def load_all_sessions(
    run: RunFolder,
    chain: ChainSummary,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    classifier: str | None = None,
    base_cost: float | None = None,
) -> list[SessionModel]:
    """Load all sessions of a chain: a model for each part of it in which no class is extended or forgotten.

    Args:
        classifier: to answer with in all sessions; None for the one that the last session names.
        base_cost: points of accuracy that a new class may cost; None for those that the base session names.

    Raises:
        DamagedError, UsageError: as `load_chain` and `choose_base_cost` do.
    """
    return _load(run, chain, _cuts(chain), device, precision, classifier, base_cost)


def _cuts(chain: ChainSummary) -> list[tuple[int, int]]:
    """Cut a chain where a class is extended or forgotten: the first session of each part, and the first after it."""
    starts = [0, *(number for number, part in enumerate(chain.sessions) if part.kind in CUTS)]
    return list(zip(starts, [*starts[1:], len(chain.sessions)], strict=True))


def _load(
    run: RunFolder,
    chain: ChainSummary,
    parts: list[tuple[int, int]],
    device: torch.device | str,
    precision: str,
    classifier: str | None,
    base_cost: float | None,
) -> list[SessionModel]:
    chosen = choose_classifier(run, chain, classifier)
    CLASSIFIERS.tell_changed(chosen, chain.last.manifest.plugins)
    record = chain.base.manifest.backbone
    base = BaseCheckpoint.read(run, chain.base)
    require_covariances(chosen, base.statistics)
    cost = choose_base_cost(chain, base.held_out, chosen, base_cost)
    later = read_later(run, chain, base)
    backbone = base.backbone.to(device).to(memory_format=torch.channels_last)
    file = run.path / chain.base.manifest.checkpoint.file
    models = []
    for first, end in parts:
        classes = chain.classes if end == len(chain.sessions) else ChainClasses.of(chain.sessions[:end])
        known = replace(known_classes(base, later, classes), base_cost=cost)
        try:
            head = build_head(chosen, known, record.similarity, record.scale, record.width)
            familiarity = build_likeness(chain.base.manifest.known_score, known.of_phi(record.width))
            confidence = _confidence(chosen, head, familiarity, base.held_out, len(base.means))
        except ValueError as error:
            raise DamagedError(f"{file}: {error}; restore it from a backup") from None
        if not CLASSIFIERS.is_foreign(chosen) and any(
            not tensor.abs().amax() < BEYOND
            for tensor in head.state_dict().values()
            if tensor.numel() and tensor.dtype.is_floating_point
        ):
            raise DamagedError(f"{file}: {chosen} makes numbers of it beyond all bounds; restore it from a backup")
        kept, means = classes.known, torch.cat([known.base, known.new])
        if len(kept) < len(classes.all):
            indices = torch.tensor([each.index for each in kept])
            head, means = head.select(indices), means[indices]
            familiarity = None if familiarity is None else familiarity.select(indices)
        ends = [chain.sessions[number].classes_so_far for number in range(first, end)]
        models.append(
            SessionModel(
                backbone=backbone,
                means=means.to(device),
                head=head.to(device).eval(),
                classifier=chosen,
                by_class=base.statistics.class_covariances is not None,
                score=chain.base.manifest.known_score,
                familiarity=None if familiarity is None else familiarity.to(device).eval(),
                confidence=confidence,
                classes=[each.name for each in kept],
                base=sum(each.session == 0 for each in kept),
                first=first,
                sizes=_count_below(kept, ends),
                taught=[each.session for each in kept],
                indices=[each.index for each in kept],
                names=_all_names(kept, chain.classes),
                transform=to_transform(chain.base.manifest.transform),
                record=record,
                precision=precision,
            )
        )
    return models


def _all_names(classes: list[TaughtClass], last: ChainClasses) -> list[tuple[str, int]]:
    """List every name of classes, with their places; of places with one name the last one counts.

    A name is that of the class that got it last. Before a class was forgotten under its name it is that class's, and
    most of all where the class has it.

    Args:
        classes: as they are after a session.
        last: all classes of the chain after its last session, forgotten ones included.
    """
    owners = {class_name(name): index for name, index in last.named}
    ranked: list[tuple[int, str, int]] = []
    for place, each in enumerate(classes):
        known = last.all[each.index]
        for name in (*known.earlier_names, known.name):
            forgotten = known.forgotten is not None and name == known.name
            if forgotten or owners[class_name(name)] == each.index:
                ranked.append((2 if name == each.name else int(forgotten), name, place))
    return [(name, place) for _, name, place in sorted(ranked)]


def _count_below(classes: list[TaughtClass], ends: list[int]) -> list[int]:
    """Count the classes, ascending by index, whose index is below each end."""
    indices = torch.tensor([each.index for each in classes])
    counts: list[int] = torch.searchsorted(indices, torch.tensor(ends)).tolist()
    return counts


def likeness(familiarity: Likeness | None, features: Tensor, logits: Tensor) -> Tensor:
    """Map features (B, D) and their logits (B, C) to the likeness to each class, (B, C)."""
    found: Tensor = logits if familiarity is None else familiarity(features)
    return found


@torch.inference_mode()
def _confidence(
    classifier: str, head: AnyHead, familiarity: Likeness | None, held_out: HeldOut | None, base: int
) -> Confidence:
    """Fit the confidence in a head's answers to its logits of the base classes alone.

    No session changes it but one that extends base classes.

    Raises:
        M2sdError: the classifier is of another package, and fails.
        ValueError: a logit or a likeness is not finite.
    """
    if held_out is None:
        return Confidence()
    logits = answer(classifier, head.first(base), held_out.features)
    like = logits if familiarity is None else familiarity(held_out.features)[:, :base]
    return fit_confidence(logits, held_out.labels, like)
