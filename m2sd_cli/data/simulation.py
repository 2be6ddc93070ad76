"""A benchmark made of another one's base training images, by which options are chosen without its test images."""

from dataclasses import replace

import torch
from torch import Tensor

from m2sd_cli.data.catalogue import TEST_SHARE, DataSetInfo
from m2sd_cli.data.choosing import rank_by_order, rank_within_class
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.sources import ImageSource, select_where


def simulate(data: DataSet, info: DataSetInfo) -> DataSet:
    """Simulate the base session and the sessions after it with the base classes of a data set alone.

    The first classes are base classes, the others are taught with a few shots a class. A tenth of every class's
    training images are its test images, at least one but not its only one. The shots are drawn among the others, by the
    number of the protocol's draw.

    Args:
        data: the original; only its base training images are looked at.
        info: the entry of the simulation.
    """
    images, labels, classes = data.train, data.train.labels, data.classes[: data.base]
    rank, tests = _rank_and_count_tests(images)
    is_test = rank < tests
    if data.protocol is not None and data.protocol.shots_draw is not None:
        rank, _ = rank_within_class(images, data.protocol.shots_draw)
    place = rank_by_order(torch.argsort(rank + len(rank) * is_test), labels)  # test images have the last places
    is_shot = ~is_test & (place < info.shots)

    def session(first: int) -> Shots:
        in_session = is_shot & (labels >= first) & (labels < first + info.way)
        return Shots.select(images, in_session, classes)

    # All sessions are selected here, so that no training holds all images of other classes for their few shots.
    sessions = [session(first) for first in range(info.base, data.base, info.way)]
    return replace(
        data,
        name=info.name,
        classes=classes,
        base=info.base,
        train=select_where(images, ~is_test & (labels < info.base)),
        test=select_where(images, is_test),
        sessions=len(sessions),
        session=lambda number: sessions[number - 1],
    )


def shot_pool(data: DataSet, info: DataSetInfo) -> Shots:
    """Select the images to draw shots from: those of the classes that a simulation teaches, without test images."""
    rank, tests = _rank_and_count_tests(data.train)
    in_pool = (rank >= tests) & (data.train.labels >= info.base)
    return Shots.select(data.train, in_pool, data.classes)


def _rank_and_count_tests(images: ImageSource) -> tuple[Tensor, Tensor]:
    """Return each image's rank in its class, and the number of its class's test images, which have the first ranks."""
    rank, size = rank_within_class(images)
    return rank, (TEST_SHARE * size.double()).round().long().clamp(min=1).minimum(size - 1)
