"""A check that reads a whole data set once, so that a bad picture is found before training and not during it."""

from typing import TypedDict

from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.repeated import list_candidates, say_repeated
from m2sd_cli.progress import Pass

CHECK_BATCH = 256  # images


class Summary(TypedDict):
    """The counts of a data set."""

    name: str
    classes: int
    base_classes: int
    training_images: int
    test_images: int
    sessions: int


def check_data(data: DataSet) -> Summary:
    """Read every image of a data set through its test transform, and report pictures that are there twice.

    Raises:
        DataError: one cannot be read; the message names it.
    """
    shots = [data.session(number) for number in range(1, data.sessions + 1)]
    sources = (data.train, data.test, *(each.source for each in shots))
    checking = Pass("checking", sum(map(len, sources)))
    for source in sources:
        for _, labels in source.batches(data.transform, CHECK_BATCH):
            checking.add(len(labels))
    names = (data.classes, data.classes, *(each.classes for each in shots))
    say_repeated(list_candidates(zip(sources, names, strict=True), data.location))
    return Summary(
        name=data.name,
        classes=len(data.classes),
        base_classes=data.base,
        training_images=len(data.train),
        test_images=len(data.test),
        sessions=data.sessions,
    )
