"""Rehearsal of later sessions: base classes play new ones, by which the classifiers of stage 3 are compared.

A third of the classes plays at a time, each class once. The features are computed once: the network stays as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Self

import torch
from torch import Tensor

from m2sd_cli.data.catalogue import SHOTS
from m2sd_cli.data.choosing import rank_by_order
from m2sd_cli.method.base_statistics import BaseSums, HeldOut, keeps_class_covariances
from m2sd_cli.method.stage3 import KnownClasses, choices
from m2sd_cli.reports.draws import DrawFigures, LabelledFeatures, compare_classifiers
from m2sd_cli.runs.manifest import BackboneRecord, ChoiceRecord, FiguresRecord
from m2sd_cli.tables import CLASSIFIERS

PARTS = 3  # of the classes, each of which plays the new ones once
DRAWS = 10  # of the shots, in each part
TEST_SHARE = 0.2  # of a class's images; each part tests with others
LEAST_IMAGES = SHOTS + 1  # of a class that plays: one to test with, the others to draw shots from
LEAST_CLASSES = 2 * PARTS  # that play: two new ones and four old ones in each part
MOST_IMAGES = 4096  # of all classes together


@dataclass(frozen=True)
class Rehearsal:
    """Figures of classifiers where base classes played new ones."""

    new: list[int]  # the number of classes that played new ones in each part
    figures: Mapping[str, list[list[DrawFigures]]]  # of each classifier, part by part and draw by draw

    def harmonic(self, name: str) -> list[float]:
        """Average the harmonic mean of base and novel accuracy over the draws of each part."""
        return [fmean(draw.harmonic for draw in part) for part in self.figures[name]]

    def best(self, default: str) -> str:
        """Choose the classifier with the highest harmonic mean among those that beat the default in every part.

        If the default wins a part, the others differ from it by no more than one part from another.
        """
        own = self.harmonic(default)
        better = [
            name
            for name in self.figures
            if all(theirs > ours for theirs, ours in zip(self.harmonic(name), own, strict=True))
        ]
        return max(better, key=lambda name: fmean(self.harmonic(name)), default=default)

    def draws(self) -> dict[str, list[DrawFigures]]:
        """Return the figures of each classifier over the draws of all parts."""
        return {name: [draw for part in parts for draw in part] for name, parts in self.figures.items()}


@dataclass(frozen=True)
class Part:
    """A division of base images in which some classes play new ones."""

    old: Tensor  # classes that stay base classes, in their order
    new: Tensor  # classes that play new ones
    learned: Tensor  # (N,) bool: images of the old classes to learn from
    pool: Tensor  # (N,) bool: images of the new classes to draw shots from
    tested: Tensor  # (N,) bool: images of old and new classes to test with, which are in neither of the others
    labels: Tensor  # (N,) int64: the old classes from 0 on, after them the new ones

    @classmethod
    def of(cls, labels: Tensor, classes: int, number: int) -> Self:
        """Make one of the PARTS divisions.

        Args:
            labels: (N,) in [0, classes), for which `why_not` is None.
            classes: the number of all classes.
            number: of the division, 0 to PARTS - 1.
        """
        ranks = _ranks(labels)
        tests = (TEST_SHARE * labels.bincount(minlength=classes).double()).round().long().clamp(min=1)
        playing = _playing(labels, classes)
        plays = torch.zeros(classes, dtype=torch.bool)
        plays[playing] = True
        new = playing[number::PARTS]
        others = torch.ones(classes, dtype=torch.bool)
        others[new] = False
        old = others.nonzero().flatten()
        place = torch.empty(classes, dtype=torch.int64)
        place[torch.cat([old, new])] = torch.arange(classes)
        first = number * tests[labels]
        tested = plays[labels] & (ranks >= first) & (ranks < first + tests[labels])
        return cls(old, new, others[labels] & ~tested, ~others[labels] & ~tested, tested, place[labels])

    def base(self, features: Tensor, held_out: HeldOut | None = None, base_cost: float | None = None) -> KnownClasses:
        """Compute the tensors of the old classes.

        Args:
            features: (N, D) of all images.
            held_out: images of all classes that were not trained on.
            base_cost: see KnownClasses.
        """
        labels = self.labels[self.learned]
        sums = BaseSums(labels.bincount(minlength=len(self.old)), features.shape[1])
        sums.add(features[self.learned], labels)
        means = sums.means.means()
        images = labels.bincount(minlength=len(self.old)).tolist()
        return KnownClasses(means, means[:0], [], sums.statistics(), images, self._of_old(held_out), base_cost)

    def _of_old(self, held_out: HeldOut | None) -> HeldOut | None:
        """Select the held-out images of the old classes, under their labels of this part; None if there is none."""
        if held_out is None:
            return None
        member = held_out.labels[:, None] == self.old
        kept = member.any(dim=1)
        return HeldOut(held_out.features[kept], member[kept].int().argmax(dim=1)) if kept.any() else None


def play(
    known: LabelledFeatures,
    part: Part,
    record: BackboneRecord,
    classifiers: Sequence[str],
    draws: int = DRAWS,
    held_out: HeldOut | None = None,
    base_cost: float | None = None,
) -> Mapping[str, list[DrawFigures]]:
    """Compare classifiers in one division; see `rehearse`."""
    return compare_classifiers(
        part.base(known.features, held_out, base_cost),
        record,
        LabelledFeatures(known.features[part.tested], part.labels[part.tested]),
        LabelledFeatures(known.features[part.pool], part.labels[part.pool] - len(part.old)),
        [len(part.old), len(part.old) + len(part.new)],
        classifiers,
        draws,
        SHOTS,
    )


def sample_images(labels: Tensor, classes: int) -> Tensor:
    """Choose the images to rehearse with: all, or as many of each class as make MOST_IMAGES together.

    Args:
        labels: (N,) in [0, classes).

    Returns:
        (N,) bool. LEAST_IMAGES of each class are chosen even if that makes more than MOST_IMAGES.
    """
    most = max(LEAST_IMAGES, MOST_IMAGES // classes)
    return _ranks(labels) < most


def why_not(labels: Tensor, classes: int) -> str | None:
    """Return the reason why there can be no rehearsal, as half a sentence; None if there can be one."""
    playing = len(_playing(labels, classes))
    if playing >= LEAST_CLASSES:
        return None
    return f"it takes {LEAST_CLASSES} classes of {LEAST_IMAGES} photos or more to learn from; {playing} are here"


@torch.inference_mode()
def rehearse(
    known: LabelledFeatures,
    classes: int,
    record: BackboneRecord,
    classifiers: Sequence[str],
    draws: int = DRAWS,
    held_out: HeldOut | None = None,
    base_cost: float | None = None,
) -> Rehearsal:
    """Compare classifiers where base classes play new ones.

    Args:
        known: features of base images, for which `why_not` is None.
        classes: of their labels.
        record: gives the similarity and the scale.
        classifiers: their names.
        draws: of the shots, in each part.
        held_out: images of all classes that were not trained on.
        base_cost: see KnownClasses.
    """
    figures: dict[str, list[list[DrawFigures]]] = {name: [] for name in classifiers}
    new = []
    for number in range(PARTS):
        part = Part.of(known.labels, classes, number)
        found = play(known, part, record, classifiers, draws, held_out, base_cost)
        new.append(len(part.new))
        for name, of_classifier in found.items():
            figures[name].append(of_classifier)
    return Rehearsal(new, figures)


def choose_for_classes(
    known: LabelledFeatures, classes: int, record: BackboneRecord, default: str
) -> tuple[ChoiceRecord, str]:
    """Choose the classifier for the classes at hand among the candidates of the table.

    Args:
        known: features of base images.
        classes: of their labels.
        record: gives the similarity and the scale.
        default: the classifier that another one has to beat.

    Returns:
        The record of the comparison, and the name of the classifier.
    """
    reason = why_not(known.labels, classes)
    if reason is not None:
        return ChoiceRecord(parts=0, draws=0, shots=0, reason=reason), default
    able = choices(record.similarity, keeps_class_covariances(classes, known.features.shape[1]))
    names = [name for name in able if CLASSIFIERS[name].candidate or name == default]
    rehearsal = rehearse(known, classes, record, names)
    means = {
        name: FiguresRecord(
            **{each.name: fmean(getattr(draw, each.name) for draw in draws) for each in fields(DrawFigures)}
        )
        for name, draws in rehearsal.draws().items()
    }
    return ChoiceRecord(parts=PARTS, draws=DRAWS, shots=SHOTS, figures=means), rehearsal.best(default)


def _ranks(labels: Tensor) -> Tensor:
    """Put the images of each class in a random order, the same one every time: (N,) int64, from 0."""
    return rank_by_order(torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)), labels)


def _playing(labels: Tensor, classes: int) -> Tensor:
    """List the classes that have images enough to play, in a random order that is the same every time."""
    enough = (labels.bincount(minlength=classes) >= LEAST_IMAGES).nonzero().flatten()
    return enough[torch.randperm(len(enough), generator=torch.Generator().manual_seed(0))]
