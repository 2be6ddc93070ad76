"""One shape for every data set: base images, sessions, test images, and how they are treated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform


@dataclass(frozen=True)
class Skipped:
    """A picture that cannot be read, and was left out."""

    file: str  # below the folder of images, as text
    reason: str


@dataclass(frozen=True)
class Shots:
    """The images that teach one session's classes; `source.labels` index `classes`."""

    classes: list[str]
    source: ImageSource
    skipped: Sequence[Skipped] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set that is at hand. Labels of `train` and `test` index `classes`; `train` holds base classes only."""

    name: str
    classes: list[str]  # of all sessions, base classes first
    base: int  # how many of them are base classes
    train: ImageSource
    test: ImageSource
    sessions: int  # incremental sessions of its own; 0 for a folder
    session: Callable[[int], Shots]  # the shots of session 1, 2, ...
    transform: TestTransform
    augmentation: Augmentation
    location: Path
    skipped: Sequence[Skipped] = ()  # of `train` and `test`
    held_out: ImageSource | None = None  # of the base classes, not in `train`: for what is set after training
