"""How well the classifiers of stage 3 answer on average over many draws of the shots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.datasets import Skipped
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.inference.features import FEATURE_BATCH, embed_batches
from m2sd_cli.method.backbones import Backbone
from m2sd_cli.method.stage3 import KnownClasses, build_head
from m2sd_cli.progress import Pass
from m2sd_cli.reports.metrics import Tally, counted
from m2sd_cli.runs.manifest import BackboneRecord


@dataclass(frozen=True)
class DrawFigures:
    """What one classifier came to with one draw; top-1 in per cent, of the last session but for AVG."""

    average: float
    last: float
    base: float
    novel: float
    harmonic: float


@dataclass(frozen=True)
class Simulation:
    """What the classifiers came to."""

    data: str  # the simulated data set
    sizes: list[int]  # classes known after session 0, 1, ...
    shots: int  # of each new class
    views: int  # of every image
    figures: Mapping[str, list[DrawFigures]]  # of each classifier, draw by draw
    skipped: Sequence[Skipped] = ()  # images that cannot be read and were not drawn, if that was asked for


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) and labels (N,) of images, on the CPU."""

    features: Tensor
    labels: Tensor


def draw_shots(pool: Tensor, classes: int, shots: int, draw: int) -> list[Tensor]:
    """The places in a pool of the shots of each class.

    Args:
        pool: (N,) int64 in [0, classes), the label of each image that may be drawn; no class is without one.
        classes: how many.
        shots: of each class, or all that it has.
        draw: its number; the same one draws the same shots.
    """
    generator = torch.Generator().manual_seed(draw)
    found = []
    for label in range(classes):
        own = torch.nonzero(pool == label).flatten()
        found.append(own[torch.randperm(len(own), generator=generator)[:shots]])
    return found


def labelled(backbone: Backbone, source: ImageSource, transform: TestTransform, precision: str, what: str) -> Labelled:
    """The features of all images of a source that is small enough for them to be held."""
    batches = source.for_testing(transform, FEATURE_BATCH)
    steps = Pass(what, len(source))
    found = []
    for features, labels in embed_batches(backbone, batches, transform, precision):
        found.append(features.cpu())
        steps.add(len(labels))
    return Labelled(torch.cat(found), source.labels)


@torch.inference_mode()
def over_draws(
    base: BaseCheckpoint,
    record: BackboneRecord,
    tested: Labelled,
    pool: Labelled,
    sizes: Sequence[int],
    classifiers: Sequence[str],
    draws: int,
    shots: int,
) -> Mapping[str, list[DrawFigures]]:
    """Teach all sessions with each draw of the shots, and let each classifier answer.

    Args:
        base: the base session, of the first sizes[0] classes.
        record: of its backbone.
        tested: test images of all classes.
        pool: images of the other classes, of which shots are drawn; label 0 is the first one after the base classes.
        sizes: classes known after session 0, 1, ...
        classifiers: by their names.
        draws, shots: how many.

    Returns:
        for each classifier its figures with draw 0, 1, ...

    Raises:
        ValueError: the base statistics are of no features.
    """
    found: dict[str, list[DrawFigures]] = {name: [] for name in classifiers}
    steps = Pass("teaching", draws * len(classifiers), "sets of shots")
    for draw in range(draws):
        places = draw_shots(pool.labels, sizes[-1] - sizes[0], shots, draw)
        features = [pool.features[each] for each in places]
        new = torch.stack([each.double().mean(dim=0).float() for each in features])
        taught = KnownClasses(base.means, new, features, base.statistics)
        for name, figures in found.items():
            head = build_head(name, taught, record.classifier, record.scale).eval()
            tally = Tally(sizes)
            for begin in range(0, len(tested.labels), FEATURE_BATCH):
                part = slice(begin, begin + FEATURE_BATCH)
                tally.add(head(tested.features[part]), tested.labels[part])
            figures.append(_figures(tally))
            steps.add()
    return found


def _figures(tally: Tally) -> DrawFigures:
    figures = tally.figures()
    last = figures.sessions[-1]
    known = figures.average, last.overall, last.base, last.novel, last.harmonic
    average, overall, base, novel, harmonic = (counted(each) for each in known)
    return DrawFigures(average, overall, base, novel, harmonic)
