"""A benchmark made of another one's base training images, to choose options by without its test images."""

from dataclasses import replace

from torch import Tensor

from m2sd_cli.data.catalogue import SHOTS, TEST_SHARE, DataSetInfo
from m2sd_cli.data.choosing import draw, those
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.sources import ImageSource


def simulate(data: DataSet, info: DataSetInfo) -> DataSet:
    """Play the base session and the sessions after it with the base classes alone.

    The first classes are base classes, the others are taught with five shots a class. A tenth of every class's
    training images are its test images, at least one but not its only one.

    Args:
        data: of which only the base training images are looked at.
        info: of the simulated data set: how many base classes it has, and how many a session teaches.
    """
    images, labels, classes = data.train, data.train.labels, data.classes[: data.base]
    place, tests = _places(images)
    is_test = place < tests
    is_shot = ~is_test & (place < tests + SHOTS)

    def session(first: int) -> Shots:
        chosen = (is_shot & (labels >= first) & (labels < first + info.way)).nonzero().flatten()
        return Shots(classes[first : first + info.way], images.select(chosen, labels[chosen] - first))

    # All of them now, so that no training holds the images of other classes for the sake of a few shots.
    sessions = [session(first) for first in range(info.base, data.base, info.way)]
    return replace(
        data,
        name=info.name,
        classes=classes,
        base=info.base,
        train=those(images, ~is_test & (labels < info.base)),
        test=those(images, is_test),
        sessions=len(sessions),
        session=lambda number: sessions[number - 1],
    )


def shot_pool(data: DataSet, info: DataSetInfo) -> Shots:
    """All images of the classes that a simulation teaches, but for its test images: what shots may be drawn of.

    Args:
        data, info: as for `simulate`.
    """
    images, labels = data.train, data.train.labels
    place, tests = _places(images)
    chosen = ((place >= tests) & (labels >= info.base)).nonzero().flatten()
    return Shots(data.classes[info.base : data.base], images.select(chosen, labels[chosen] - info.base))


def _places(images: ImageSource) -> tuple[Tensor, Tensor]:
    """The place of each image in its class, and how many of that class are test images: those of the first places."""
    place, size = draw(images)
    return place, (TEST_SHARE * size.double()).round().long().clamp(min=1).minimum(size - 1)
