"""A session of a run folder, loaded: frozen backbone, the head of all sessions so far, names, transform."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint
from m2sd_cli.data.names import class_name, name_key
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DamagedError, UsageError
from m2sd_cli.inference.features import embed
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.base_statistics import BaseStatistics, HeldOut
from m2sd_cli.method.calibration import Confidence, fit_confidence
from m2sd_cli.method.extension import extended_base, joined_mean
from m2sd_cli.method.familiarity import Likeness, build_likeness
from m2sd_cli.method.heads import AnyHead
from m2sd_cli.method.stage3 import KnownClasses, answer, build_head, choices, load_builder
from m2sd_cli.registry import one_of
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.classes import ChainClasses, TaughtClass
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import WITH_SHOTS, BackboneRecord, TransformRecord
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


def choose_classifier(run: RunFolder, chain: ChainSummary, name: str | None) -> str:
    """Choose the classifier that a chain answers with: `name`, else the classifier of its last session.

    Raises:
        UsageError: there is none of that name, or it compares directions and W was trained as a linear one.
        M2sdError: it is of another package, and cannot be imported.
        DamagedError: the session names a classifier that this version does not know.
    """
    recorded = chain.last.manifest.classifier
    assert recorded is not None, "every session names one"
    if not name and recorded not in CLASSIFIERS:
        raise run.unknown(chain.last, "classifier", recorded)
    chosen = name or recorded
    require_classifier(chosen, chain.base.manifest.backbone.similarity)
    return chosen


def require_classifier(name: str, similarity: str) -> None:
    """Refuse a classifier that cannot be imported, or compares directions if the trained W is linear.

    Raises:
        UsageError: it does so, or there is none of that name; the message lists the others.
        M2sdError: it is of another package, and cannot be imported.
    """
    load_builder(name)
    if CLASSIFIERS[name].cosine_only and similarity != "cosine":
        raise UsageError(
            f"--classifier {name}: it compares directions, and this run was pretrained with --similarity {similarity}; "
            f"choose {', '.join(choices(similarity))}"
        )


def require_covariances(name: str, statistics: BaseStatistics) -> None:
    """Refuse a classifier that needs the covariance of each base class if session 0 keeps none.

    Raises:
        UsageError: it needs them, and there are none.
    """
    if CLASSIFIERS[name].by_class and statistics.class_covariances is None:
        raise UsageError(
            f"--classifier {name}: session 0 keeps no covariance of each class, as those of earlier versions and of "
            f"many wide classes; distill once more with this version, or choose another classifier"
        )


def choose_base_cost(
    chain: ChainSummary, held_out: HeldOut | None, classifier: str, asked: float | None
) -> float | None:
    """Choose the points of accuracy that a new class may cost: `asked`, else those of the base session.

    Raises:
        UsageError: points are asked for, and the classifier ignores them or no held-out image measures them.
    """
    if asked is None:
        return chain.base.manifest.base_cost
    if not 0 <= asked <= 100:
        raise UsageError(f"--base-cost {asked:g}: points of accuracy, 0 to 100")
    if not CLASSIFIERS[classifier].base_cost:
        able = one_of([name for name in CLASSIFIERS.entries if CLASSIFIERS[name].base_cost])
        raise UsageError(f"--base-cost {asked:g}: {classifier} has none; leave it out, or add --classifier {able}")
    if held_out is None:
        raise UsageError(f"--base-cost {asked:g}: pretrain held no base image out to measure it with; leave it out")
    return asked


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


def read_later(run: RunFolder, chain: ChainSummary, base: BaseCheckpoint) -> dict[int, IncrementCheckpoint]:
    """Read the checkpoints of the sessions with shots, by their numbers.

    Raises:
        DamagedError: one is damaged, or does not fit its manifest.
    """
    return {
        number: IncrementCheckpoint.read(run, part, base.backbone.session_width)
        for number, part in enumerate(chain.sessions)
        if part.kind in WITH_SHOTS
    }


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


def known_classes(base: BaseCheckpoint, later: dict[int, IncrementCheckpoint], classes: ChainClasses) -> KnownClasses:
    """Collect the tensors of all classes, forgotten ones included, with the shots of all sessions that taught them.

    A forgotten class still counts in the heads of the others, so that their answers stay.
    """
    count = len(base.means)
    more = {
        each.index: torch.cat([later[number].shots[place] for number, place in each.shots[1:]])
        for each in classes.all[:count]
        if len(each.shots) > 1
    }
    means, statistics, images = base.means, base.statistics, base.images
    if more:
        means, statistics, images = extended_base(means, statistics, images, more)
    new, shots = [means[:0]], []
    for each in classes.all[count:]:
        parts = [later[number].shots[place] for number, place in each.shots]
        number, place = each.shots[0]
        shots.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        mean = later[number].means[place] if len(parts) == 1 else joined_mean(shots[-1])
        new.append(mean[None])
    views = [each.views or 1 for each in classes.all[count:]]
    return KnownClasses(
        means,
        torch.cat(new),
        shots,
        statistics,
        images,
        base.held_out,
        views=views,
        covariance_images=base.images,
    )


def likeness(familiarity: Likeness | None, features: Tensor, logits: Tensor) -> Tensor:
    """Map features (B, D) and their logits (B, C) to the likeness to each class, (B, C)."""
    found: Tensor = logits if familiarity is None else familiarity(features)
    return found


@torch.inference_mode()
def _confidence(
    classifier: str, head: AnyHead, familiarity: Likeness | None, held_out: HeldOut | None, base: int
) -> Confidence:
    """Fit the confidence in a head's answers to its logits of the base classes alone: no later session changes it.

    Raises:
        M2sdError: the classifier is of another package, and fails.
        ValueError: a logit or a likeness is not finite.
    """
    if held_out is None:
        return Confidence()
    logits = answer(classifier, head.first(base), held_out.features)
    like = logits if familiarity is None else familiarity(held_out.features)[:, :base]
    return fit_confidence(logits, held_out.labels, like)
