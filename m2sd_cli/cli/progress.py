"""How long work is shown: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from m2sd_cli.cli.output import duration, note
from m2sd_cli.data.passes import Pass, heard
from m2sd_cli.launch import speaks
from m2sd_cli.training.progress import Progress, Silent, Snapshot

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

BAR_INTERVAL = 0.5  # seconds
LINE_INTERVAL = 30.0  # seconds


def _figures(snapshot: Snapshot) -> str:
    parts = [f"loss {snapshot.loss:.3f}"]
    if snapshot.accuracy is not None:
        parts.append(f"accuracy {100 * snapshot.accuracy:.1f} %")
    parts.append(f"{snapshot.images_per_second:.0f} images/s")
    return ", ".join(parts)


class Lines:
    """Plain lines on stderr."""

    interval = LINE_INTERVAL

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def show(self, snapshot: Snapshot) -> None:
        """One line."""
        left = f", {duration(snapshot.seconds_left)} left" if snapshot.step < snapshot.steps else ""
        note(f"{self._stage}: epoch {snapshot.epoch}/{snapshot.epochs}, {_figures(snapshot)}{left}")


class PassLines:
    """A plain line about a pass over pictures now and then, if it lasts."""

    def __init__(self) -> None:
        self._begun = self._told = 0.0  # by monotonic()

    def __call__(self, steps: Pass) -> None:
        """Hear of a step."""
        now = monotonic()
        if steps.done == 0:
            self._begun = self._told = now
        elif 0 < steps.done < steps.total and now - self._told >= LINE_INTERVAL:
            self._told = now
            note(f"{steps.what}: {steps.done} of {steps.total} images, {_pace(steps, now - self._begun)}")


class PassBars:
    """A bar for a pass over pictures, as long as it lasts, if that is no mere moment.

    Args:
        bars: where bars are; asked for when the first one is needed.
    """

    def __init__(self, bars: "Callable[[], Bars]") -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._begun = self._told = 0.0  # by monotonic()

    def __call__(self, steps: Pass) -> None:
        """Hear of a step."""
        now = monotonic()
        if steps.done == 0:
            self._begun = self._told = now
        if self._task is not None and steps.done in (0, steps.total):
            self._bars().remove_task(self._task)
            self._task = None
        elif 0 < steps.done < steps.total and now - self._told >= BAR_INTERVAL:
            self._told = now
            if self._task is None:
                self._task = self._bars().add_task(steps.what, total=steps.total, figures="")
            figures = f"{steps.done} of {steps.total} images, {_pace(steps, now - self._begun)}"
            self._bars().update(self._task, completed=steps.done, figures=figures)


def _pace(steps: Pass, seconds: float) -> str:
    rate = steps.done / max(seconds, 1e-9)
    return f"{rate:.0f}/s, {duration((steps.total - steps.done) / rate)} left"


def _bars(transient: bool) -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
    )
    return Bars(*columns, console=Console(stderr=True), transient=transient)


@contextmanager
def watch_passes(quiet: bool = False) -> Iterator[None]:
    """Shows how far passes over pictures have come, of those that last, fit for whatever stderr is."""
    if quiet or not speaks():
        yield
    elif not sys.stderr.isatty():
        with heard(PassLines()):
            yield
    else:
        with ExitStack() as stack:
            shown: list[Bars] = []

            def bars() -> "Bars":
                if not shown:
                    shown.append(stack.enter_context(_bars(transient=True)))
                return shown[0]

            with heard(PassBars(bars)):
                yield


@contextmanager
def watch(stage: str, quiet: bool) -> Iterator[Progress]:
    """The progress of one stage and of the passes that belong to it, fit for whatever stderr is."""
    if quiet or not speaks():
        yield Silent()
    elif not sys.stderr.isatty():
        with heard(PassLines()):
            yield Lines(stage)
    else:
        with _bars(transient=False) as bars:
            task = bars.add_task(stage, total=None, figures="preparing")

            class Bar:
                interval = BAR_INTERVAL

                def show(self, snapshot: Snapshot) -> None:
                    left = f", {duration(snapshot.seconds_left)} left" if snapshot.step < snapshot.steps else ""
                    bars.update(
                        task,
                        description=f"{stage} {snapshot.epoch}/{snapshot.epochs}",
                        total=snapshot.steps,
                        completed=snapshot.step,
                        figures=_figures(snapshot) + left,
                    )

            with heard(PassBars(lambda: bars)):
                yield Bar()
