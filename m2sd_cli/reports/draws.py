"""Comparison of the classifiers of stage 3 over many draws of the shots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.inference.features import FEATURE_BATCH, embed_batches
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.heads import AnyHead
from m2sd_cli.method.stage3 import KnownClasses, build_head
from m2sd_cli.progress import Pass
from m2sd_cli.reports.answers import class_sessions, first_loss
from m2sd_cli.reports.metrics import chain_figures, require_figure
from m2sd_cli.runs.manifest import BackboneRecord
from m2sd_cli.tables import CLASSIFIERS

CLASSES_AT_ONCE = 2048  # new classes in one head, which answers with several draws


@dataclass(frozen=True)
class DrawFigures:
    """Accuracies of one classifier with one draw; top-1 in per cent, of the last session but for AVG."""

    average: float
    last: float
    base: float
    novel: float
    harmonic: float


@dataclass(frozen=True)
class Simulation:
    """Accuracies of classifiers over draws of the shots."""

    data: str  # the simulated data set
    sizes: list[int]  # classes known after session 0, 1, ...
    shots: int  # of each new class
    views: int  # of every image
    figures: Mapping[str, list[DrawFigures]]  # of each classifier, draw by draw
    skipped: Sequence[Skipped] = ()  # images that cannot be read and were left out, if --skip-bad asks for it
    playing: Sequence[int] = ()  # of classes that play new ones in turn, the number in each part; else empty


@dataclass(frozen=True)
class LabelledFeatures:
    """Features (N, D) and labels (N,) of images, on the CPU."""

    features: Tensor
    labels: Tensor


def draw_shots(pool: Tensor, classes: int, shots: int, draw: int) -> list[Tensor]:
    """Draw the shots of each class.

    Args:
        pool: (N,) int64 in [0, classes), the label of each image that may be drawn; every class has one.
        shots: the most shots of each class.
        draw: the number of the draw; the same number draws the same shots.

    Returns:
        For each class the indices of its shots in the pool.
    """
    generator = torch.Generator().manual_seed(draw)
    indices = [torch.nonzero(pool == label).flatten() for label in range(classes)]
    return [each[torch.randperm(len(each), generator=generator)[:shots]] for each in indices]


def embed_source(
    backbone: Backbone, source: ImageSource, transform: TestTransform, precision: str, what: str
) -> LabelledFeatures:
    """Compute the features of all images of a source, all held in memory.

    Args:
        backbone: in eval mode.
        what: the name of the pass, for the reporter.
    """
    steps = Pass(what, len(source))
    parts = []
    for features, labels in embed_batches(backbone, source.for_testing(transform, FEATURE_BATCH), transform, precision):
        parts.append(features.cpu())
        steps.add(len(labels))
    return LabelledFeatures(torch.cat(parts), source.labels)


@torch.inference_mode()
def compare_classifiers(
    base: KnownClasses,
    record: BackboneRecord,
    tested: LabelledFeatures,
    pool: LabelledFeatures,
    sizes: Sequence[int],
    classifiers: Sequence[str],
    draws: int,
    shots: int,
) -> Mapping[str, list[DrawFigures]]:
    """Teach all sessions with each draw of the shots, and evaluate each classifier.

    Args:
        base: the tensors of the sizes[0] base classes, without new ones.
        tested: test images of all classes.
        pool: images of the new classes to draw shots from; label 0 is the first class after the base classes.
        sizes: classes known after session 0, 1, ...

    Returns:
        For each classifier its figures with draw 0, 1, ...

    Raises:
        ValueError: the base statistics are of no features.
    """
    new = sizes[-1] - sizes[0]
    names = list(dict.fromkeys(classifiers))
    figures: dict[str, list[DrawFigures]] = {name: [] for name in names}
    steps = Pass("teaching", draws * len(names), "sets of shots")
    together = max(1, CLASSES_AT_ONCE // max(new, 1))
    for first in range(0, draws, together):
        some = range(first, min(draws, first + together))
        # A row depends on the shots of its own class alone: one head answers with all draws.
        features = [pool.features[each] for draw in some for each in draw_shots(pool.labels, new, shots, draw)]
        means = torch.stack([each.double().mean(dim=0).float() for each in features])
        taught = replace(base, new=means, shots=features)
        for name in names:
            head = build_head(name, taught, record.similarity, record.scale, record.width).eval()
            with CLASSIFIERS.blamed(name):
                figures[name] += _evaluate(head, tested, sizes, len(some))
            steps.add(len(some))
    return figures


def _evaluate(head: AnyHead, tested: LabelledFeatures, sizes: Sequence[int], draws: int) -> list[DrawFigures]:
    """Evaluate each draw, with the base classes and its own new ones.

    Args:
        head: of the base classes, and after them the new classes of one draw after the other.
        tested: test images of all classes.
        sizes: classes known after session 0, 1, ...
        draws: the number of draws in the head.
    """
    sessions = class_sessions(sizes)
    base = torch.arange(sizes[0])
    columns = [torch.cat([base, each]) for each in torch.arange(sizes[0], head.classes).view(draws, -1)]
    lost: list[list[Tensor]] = [[] for _ in columns]
    batches = zip(*(torch.split(each, FEATURE_BATCH) for each in (tested.features, tested.labels)), strict=True)
    for features, labels in batches:
        logits = head(features)
        for of_draw, own in zip(lost, columns, strict=True):
            of_draw.append(first_loss(logits[:, own], labels, sessions))
    found = []
    for of_draw in lost:
        figures = chain_figures(tested.labels, torch.cat(of_draw), sizes)
        last = figures.sessions[-1]
        every = figures.average, last.overall, last.base, last.novel, last.harmonic
        found.append(DrawFigures(*(require_figure(each) for each in every)))
    return found
