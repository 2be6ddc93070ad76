"""The one shape of every data set: base images, sessions, test images, and the treatment of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import DataSetInfo
from m2sd_cli.data.protocol import Protocol
from m2sd_cli.data.sources import ImageSource, select_where
from m2sd_cli.data.split_list import SplitList
from m2sd_cli.data.transforms import TestTransform


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be read, and was left out."""

    file: str  # below the folder of images, as text
    reason: str


@dataclass(frozen=True)
class Shots:
    """The images that teach one session's classes; `source.labels` index `classes`."""

    classes: list[str]
    source: ImageSource
    skipped: Sequence[Skipped] = ()

    @classmethod
    def select(cls, source: ImageSource, chosen: Tensor, classes: Sequence[str]) -> "Shots":
        """Select the shots of a session, whose classes come in the order of their labels.

        Args:
            source: images whose labels index `classes`.
            chosen: their indices (M,) int64, or a mask (N,) bool.
            classes: all classes of the data set.
        """
        indices = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        labels = source.labels[indices]
        present = torch.unique(labels)
        names = [classes[label] for label in present.tolist()]
        return cls(names, source.select(indices, torch.searchsorted(present, labels)))


class Treatment(NamedTuple):
    """The transforms of a data set's images: in testing, and in training."""

    transform: TestTransform
    augmentation: Augmentation


@dataclass(frozen=True)
class DataSet:
    """A data set that has been opened.

    Labels of `train` and `test` index `classes`; `train` holds base classes alone.
    """

    name: str
    classes: list[str]  # of all sessions, base classes first
    base: int  # the number of base classes among them
    train: ImageSource
    test: ImageSource
    sessions: int  # incremental sessions of its own; 0 for a folder without a list
    session: Callable[[int], Shots]  # the shots of session 1, 2, ...
    transform: TestTransform
    augmentation: Augmentation
    location: Path
    skipped: Sequence[Skipped] = ()  # of `train` and `test`
    held_out: ImageSource | None = None  # base images that are not in `train`; they calibrate the answers
    whole: ImageSource | None = None  # training images of all classes, as a data set of the catalogue is opened
    protocol: Protocol | None = None  # that divides it, if it is not the official one
    listed: SplitList | None = None  # the list of every image, if a list divides a folder

    @classmethod
    def from_info(
        cls,
        info: DataSetInfo,
        treatment: Treatment,
        classes: list[str],
        train: ImageSource,
        test: ImageSource,
        session: Callable[[int], Shots],
        location: Path,
    ) -> "DataSet":
        """Make a data set of the catalogue.

        Args:
            classes: names of all classes, base classes first.
            train: training images of all classes, with labels that index `classes`.
            test: test images of all classes, likewise.
            session: gives the shots of session 1, 2, ..., see `Shots.select`.
        """
        return cls(
            name=info.name,
            classes=classes,
            base=info.base,
            train=select_where(train, train.labels < info.base),
            test=test,
            sessions=info.sessions,
            session=session,
            transform=treatment.transform,
            augmentation=treatment.augmentation,
            location=location,
            whole=train,
        )
