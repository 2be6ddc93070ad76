"""Progress of long work: a Reporter hears of trainings, of passes over images, and of messages.

The reporter is in the context and not an argument, since passes lie deep in the code and no result depends on it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeVar

Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Format seconds for a person."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True)
class Snapshot:
    """The state of a training; its averages are over the epoch under way."""

    epoch: int  # from 1
    epochs: int
    step: int  # steps done, over all epochs
    steps: int
    loss: float
    accuracy: float | None  # share of clean training images, where it is known
    images_per_second: float
    seconds_left: float


class Pass:
    """A pass over many images; the reporter hears of its beginning and of every step.

    Args:
        name: the work, such as "decoding".
        total: the number of images, or of other units.
        unit: the name of the unit in the plural.
    """

    def __init__(self, name: str, total: int, unit: str = "images") -> None:
        self.name: Final = name
        self.total: Final = total
        self.unit: Final = unit
        self.done = 0
        self.add(0)

    def add(self, steps: int = 1) -> None:
        """Count a number of further steps as done."""
        self.done += steps
        with suppress(OSError):
            _reporter.get().show_pass(self)


class Reporter:
    """A listener to long work that ignores it; a subclass overrides the methods of the work that it shows.

    An OSError of a reporter is ignored: a line that cannot be written ends no work.

    Attributes:
        interval: seconds between two snapshots of a training, each of which waits for the device.
    """

    interval = float("inf")

    def begin_stage(self, stage: str) -> None:
        """Hear that a training begins, before its images are opened."""

    def show(self, snapshot: Snapshot) -> None:
        """Hear how far the training has come."""

    def end_stage(self) -> None:
        """Hear that the training has ended, finished or not."""

    def show_pass(self, step: Pass) -> None:
        """Hear of one step of a pass."""

    def say(self, text: str) -> None:
        """Hear one line for the person who waits."""

    def close(self) -> None:
        """Hear that no more work follows."""


SILENT: Final = Reporter()
_reporter: ContextVar[Reporter] = ContextVar("reporter", default=SILENT)


@contextmanager
def report_to(reporter: Reporter) -> Iterator[None]:
    """Have a reporter hear of all work of the code inside."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)
        with suppress(OSError):
            reporter.close()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Report a training, from before its images are opened to its end."""
    reporter = _reporter.get()
    with suppress(OSError):
        reporter.begin_stage(name)
    try:
        yield
    finally:
        with suppress(OSError):
            reporter.end_stage()


def snapshot_interval() -> float:
    """Return the seconds between two snapshots that the reporter wants."""
    return _reporter.get().interval


def show(snapshot: Snapshot) -> None:
    """Report how far a training has come."""
    with suppress(OSError):
        _reporter.get().show(snapshot)


def say(text: str) -> None:
    """Report one line for the person who waits."""
    with suppress(OSError):
        _reporter.get().say(text)


def count_passing(items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
    """Yield the items, one for each image, as steps of a pass; a step is done when the next item is asked for."""
    steps = Pass(name, total)
    for item in items:
        yield item
        steps.add()
