"""How long work is shown: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

from m2sd_cli.cli.output import duration, note
from m2sd_cli.data.passes import Pass, heard
from m2sd_cli.distributed.torchrun import is_main_process
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
            note(f"{steps.what}: {steps.done} of {steps.total} {steps.unit}, {_pace(steps, now - self._begun)}")


class PassBars:
    """A bar for a pass over pictures, as long as it lasts, if that is no mere moment.

    Args:
        bars: where it is shown; drawn already, or only as long as a pass is.
    """

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._drawn_by_others = bars.live.is_started
        self._task: TaskID | None = None
        self._broken = False  # the terminal, on which nothing more is tried then
        self._begun = self._told = 0.0  # by monotonic()

    def __call__(self, steps: Pass) -> None:
        """Hear of a step."""
        if not self._broken:
            try:
                self._show(steps)
            except OSError:
                self._broken = True

    def _show(self, steps: Pass) -> None:
        now = monotonic()
        if steps.done in (0, steps.total):
            self._take_away()
            self._begun = self._told = now
        elif now - self._told >= BAR_INTERVAL:
            self._told = now
            figures = f"{steps.done} of {steps.total} {steps.unit}, {_pace(steps, now - self._begun)}"
            if self._task is None:
                self._task = self._bars.add_task(steps.what, total=steps.total, completed=steps.done, figures=figures)
                if not self._drawn_by_others:
                    self._bars.start()
            else:
                self._bars.update(self._task, completed=steps.done, figures=figures)

    def clear(self) -> None:
        """Take away the bar of a pass that was left."""
        if not self._broken:
            with suppress(OSError):
                self._take_away()

    def _take_away(self) -> None:
        if self._task is not None:
            if not self._drawn_by_others:
                self._bars.stop()
            self._bars.remove_task(self._task)
            self._task = None


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
    if quiet or not is_main_process():
        yield
    elif not sys.stderr.isatty():
        with heard(PassLines()):
            yield
    else:
        with _bar_for_passes(_bars(transient=True)):
            yield


@contextmanager
def _bar_for_passes(bars: "Bars") -> Iterator[None]:
    passes = PassBars(bars)
    try:
        with heard(passes):
            yield
    finally:
        passes.clear()


@contextmanager
def watch(stage: str, quiet: bool) -> Iterator[Progress]:
    """The progress of one stage and of the passes that belong to it, fit for whatever stderr is."""
    if quiet or not is_main_process():
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

            with _bar_for_passes(bars):
                yield Bar()
