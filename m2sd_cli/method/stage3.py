"""Stage 3: from the tensors of a chain's sessions to the head of one of the table CLASSIFIERS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from m2sd_cli.errors import M2sdError
from m2sd_cli.method.base_statistics import BaseStatistics, HeldOut
from m2sd_cli.method.feature_maps import PlainFeatures, power_transform
from m2sd_cli.method.heads import AnyHead, Head, NetworkHead
from m2sd_cli.progress import say
from m2sd_cli.registry import load
from m2sd_cli.tables import CLASSIFIERS, DEFAULT_CLASSIFIER, UNTRAINED_CLASSIFIER


@dataclass(frozen=True)
class KnownClasses:
    """The tensors of the sessions of a chain, of C base classes and N new ones."""

    base: Tensor  # class means of the features as they are, of the base session (C, D)
    new: Tensor  # class means of the other sessions (N, D)
    shots: Sequence[Tensor]  # of each new class, the features (K, D) of its shots, K = shots x views
    statistics: BaseStatistics  # of the images of the base classes
    images: Sequence[int]  # number of images of each base class
    held_out: HeldOut | None = None  # features (H, D) and labels (H,) of held-out base images; None without any
    base_cost: float | None = None  # points that one new class may take from base classes; None: a margin by distance
    views: Sequence[int] = ()  # of each shot, for each new class; empty: one of every shot
    covariance_images: Sequence[int] = ()  # that the covariance of each base class is of; empty: all of `images`

    @property
    def all_images(self) -> list[int]:
        """The number of images of each class, base classes first. Views of one image are no more images."""
        views = self.views or [1] * len(self.shots)
        return [*self.images, *(len(each) // count for each, count in zip(self.shots, views, strict=True))]

    def power_means(self) -> Tensor:
        """Average the power-transformed features of each new class, (N, D)."""
        base, power = self.statistics.power_means, float(self.statistics.power)
        return torch.cat([base[:0], *(power_transform(each, power).mean(dim=0, keepdim=True) for each in self.shots)])

    def of_phi(self, width: int) -> "KnownClasses":
        """Make the same of phi(x) alone, the first `width` features. There are no random features of it."""
        if width == self.base.shape[1]:
            return self
        held_out = self.held_out
        return replace(
            self,
            base=self.base[:, :width],
            new=self.new[:, :width],
            shots=[each[:, :width] for each in self.shots],
            statistics=self.statistics.of_phi(width),
            held_out=held_out and HeldOut(held_out.features[:, :width], held_out.labels),
        )


def default_classifier(similarity: str, trained: bool = True) -> str:
    """Return the name of the classifier that a base session answers with unless another one is chosen.

    Args:
        similarity: of the trained W.
        trained: False if the network is a pretrained one as it was.
    """
    if not trained:
        return UNTRAINED_CLASSIFIER
    return "means" if similarity != "cosine" and CLASSIFIERS[DEFAULT_CLASSIFIER].cosine_only else DEFAULT_CLASSIFIER


def choices(similarity: str, by_class: bool = True) -> list[str]:
    """List the classifiers that a base session can answer with; one that cannot be imported is left out with a line.

    Args:
        similarity: of the trained W.
        by_class: True if the session keeps the covariance of each class.
    """
    able = []
    for name, entry in CLASSIFIERS.loadable().items():
        if (similarity == "cosine" or not entry.cosine_only) and (by_class or not entry.by_class):
            try:
                load_builder(name)
            except M2sdError as error:
                say(f"left out: {error}")
            else:
                able.append(name)
    return able


def load_builder(name: str) -> Callable[..., Any]:
    """Import the builder of a classifier.

    Raises:
        UsageError: there is no classifier of that name.
        M2sdError: the builder cannot be imported.
    """
    builder = CLASSIFIERS[name].builder
    try:
        return load(builder)
    except M2sdError as error:
        raise CLASSIFIERS.broken(name, str(error)) from error


def build_head(name: str, known: KnownClasses, similarity: str, scale: float, width: int | None = None) -> AnyHead:
    """Build the head of a classifier.

    Args:
        name: one of `choices`.
        known: the tensors of the sessions.
        similarity: of the trained W; class means are compared with features as its rows were.
        scale: of a cosine; the other heads are brought to about its size.
        width: the length of phi(x), with which features begin; None if they are no longer.

    Raises:
        UsageError: there is no classifier of that name.
        M2sdError: a classifier of another package cannot be loaded, fails, or does not keep the contract.
        ValueError: the statistics are of no features.
    """
    if CLASSIFIERS[name].levels or width is None or width >= known.base.shape[1]:
        width = None
    head = _build(name, known, similarity, scale, width)
    if len(known.new) and CLASSIFIERS.is_foreign(name):
        before = replace(known, new=known.new[:-1], shots=known.shots[:-1], views=known.views[:-1])
        example = torch.cat([known.base[:2], known.new[-1:]])
        logits = answer(name, head, example)[:, :-1]
        earlier = answer(name, _build(name, before, similarity, scale, width), example)
        if not torch.allclose(logits, earlier, rtol=1e-3, atol=1e-3 * scale):
            raise CLASSIFIERS.broken(
                name, "a later class changes the logits of earlier ones, whose sessions would be measured with it"
            )
    return head


def answer(name: str, head: nn.Module, features: Tensor) -> Tensor:
    """Map features (B, D) to the logits (B, C) of a head in eval mode.

    Raises:
        M2sdError: the classifier is of another package, and it fails or its logits are not finite.
    """
    with torch.no_grad(), CLASSIFIERS.blamed(name):
        logits: Tensor = head.eval()(features)
    if CLASSIFIERS.is_foreign(name) and isinstance(logits, Tensor) and not bool(logits.isfinite().all()):
        raise CLASSIFIERS.broken(name, f"its logits of {len(features)} features are not finite")
    return logits


def _build(name: str, known: KnownClasses, similarity: str, scale: float, width: int | None) -> AnyHead:
    """Call the builder of a classifier, and check that its head answers for each class; see `build_head`.

    Args:
        width: of the first features, which the classifier compares alone; None for all.
    """
    seen = known if width is None else known.of_phi(width)
    with CLASSIFIERS.blamed(name):
        head = load_builder(name)(seen, similarity, scale)
    if not isinstance(head, nn.Module):
        raise CLASSIFIERS.broken(name, f"it builds a {type(head).__name__}, and no Head or nn.Module")
    classes = len(seen.base) + len(seen.new)
    # A subclass of Head may have a forward of its own, which rows and map do not describe.
    if type(head) is Head and len(head.rows) != classes:
        raise CLASSIFIERS.broken(name, f"it builds a Head of {len(head.rows)} rows for {classes} classes")
    if CLASSIFIERS.is_foreign(name):
        example = seen.base[:2]
        logits = answer(name, head, example)
        if not isinstance(logits, Tensor) or logits.shape != (len(example), classes):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise CLASSIFIERS.broken(name, f"its logits of {len(example)} features and {classes} classes are {shape}")
    if type(head) is Head and width is None:
        return head
    if type(head) is Head and type(head.features) is PlainFeatures:  # which remains a table of rows
        head.features = PlainFeatures(head.features.width or width)
        return head
    return NetworkHead(head if width is None else nn.Sequential(PlainFeatures(width), head), torch.arange(classes))
