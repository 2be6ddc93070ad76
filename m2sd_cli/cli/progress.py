"""Reporters for a terminal and for a log: a bar on the one, plain lines in the other."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from m2sd_cli.cli.output import duration, note, printable
from m2sd_cli.distributed.torchrun import is_main_process
from m2sd_cli.progress import Pass, Reporter, Snapshot, report_to

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_INTERVAL = 0.5  # seconds
LINE_INTERVAL = 30.0  # seconds
BAR = 40  # characters of the bar, if the line is long enough
WITHOUT_BAR = 80  # characters for everything else


@contextmanager
def reporting(quiet: bool = False) -> Iterator[None]:
    """Show long work of the code inside in a way that fits stderr, or not at all if quiet."""
    reporter = Reporter()
    if not quiet and is_main_process():
        reporter = Bars() if sys.stderr.isatty() else Lines()
    with report_to(reporter):
        yield


def _figures(snapshot: Snapshot) -> list[str]:
    parts = [f"loss {snapshot.loss:.3f}"]
    if snapshot.accuracy is not None:
        parts.append(f"accuracy {100 * snapshot.accuracy:.1f} %")
    parts.append(f"{snapshot.images_per_second:.0f} images/s")
    if snapshot.step < snapshot.steps:
        parts.append(f"{duration(snapshot.seconds_left)} left")
    return parts


class _Pace:
    """The times at which a pass began and was shown last."""

    def __init__(self) -> None:
        self._begun = self._shown = 0.0  # by monotonic()

    def begin(self) -> None:
        self._begun = self._shown = monotonic()

    def is_due(self, interval: float) -> bool:
        """Tell whether the interval has gone by since the pass was shown, or began; if so, it is shown now."""
        now = monotonic()
        if now - self._shown < interval:
            return False
        self._shown = now
        return True

    def figures(self, step: Pass) -> list[str]:
        rate = step.done / max(self._shown - self._begun, 1e-9)
        left = duration((step.total - step.done) / rate)
        return [f"{step.done} of {step.total} {step.unit}", f"{rate:.0f}/s", f"{left} left"]


class _Said:
    """The lines that were said: trainings of one command have the same to say of the same network."""

    def __init__(self) -> None:
        self._lines: set[str] = set()

    def is_new(self, text: str) -> bool:
        """Tell whether a line has not been said before, and keep it."""
        new = text not in self._lines
        self._lines.add(text)
        return new


class Lines(Reporter):
    """Plain lines on stderr: one of a training every half minute, and of a pass, if it lasts as long."""

    interval = LINE_INTERVAL

    def __init__(self) -> None:
        self._stage = ""
        self._pace = _Pace()
        self._said = _Said()

    def begin_stage(self, stage: str) -> None:
        """See Reporter."""
        self._stage = stage

    def show(self, snapshot: Snapshot) -> None:
        """See Reporter."""
        note(f"{self._stage}: epoch {snapshot.epoch}/{snapshot.epochs}, {', '.join(_figures(snapshot))}")

    def show_pass(self, step: Pass) -> None:
        """See Reporter."""
        if step.done == 0:
            self._pace.begin()
        elif step.done < step.total and self._pace.is_due(LINE_INTERVAL):
            note(f"{step.name}: {', '.join(self._pace.figures(step))}")

    def say(self, text: str) -> None:
        """See Reporter."""
        if self._said.is_new(text):
            note(text)


class Bars(Reporter):
    """A bar for a training, which stays, and one for a pass that takes longer than a moment, until its end."""

    interval = BAR_INTERVAL

    def __init__(self) -> None:
        self._live: Progress | None = None  # the display of the training or pass under way
        self._training: TaskID | None = None
        self._pass: TaskID | None = None
        self._pace = _Pace()
        self._said = _Said()

    def begin_stage(self, stage: str) -> None:
        """See Reporter."""
        self.close()
        self._live = _new_display(transient=False)
        self._training = self._live.add_task(stage, total=None, figures=["preparing"])
        self._live.start()
        self._stage = stage

    def show(self, snapshot: Snapshot) -> None:
        """See Reporter."""
        if self._live is not None and self._training is not None:
            self._live.update(
                self._training,
                description=f"{self._stage} {snapshot.epoch}/{snapshot.epochs}",
                total=snapshot.steps,
                completed=snapshot.step,
                figures=_figures(snapshot),
            )

    def end_stage(self) -> None:
        """See Reporter."""
        self.close()

    def show_pass(self, step: Pass) -> None:
        """See Reporter."""
        if step.done in (0, step.total):
            self._end_pass()
            self._pace.begin()
        elif self._pace.is_due(BAR_INTERVAL):
            figures = self._pace.figures(step)
            if self._live is None:
                self._live = _new_display(transient=True)
                self._live.start()
            if self._pass is None:
                self._pass = self._live.add_task(step.name, total=step.total, completed=step.done, figures=figures)
            else:
                self._live.update(self._pass, completed=step.done, figures=figures)

    def say(self, text: str) -> None:
        """See Reporter."""
        if not self._said.is_new(text):
            return
        if self._live is None:
            note(text)
        else:  # above the bar, which would otherwise be broken by the line
            self._live.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """See Reporter."""
        self._end_pass()
        if self._live is not None:
            self._live.stop()
        self._live = self._training = None

    def _end_pass(self) -> None:
        if self._live is not None and self._pass is not None:
            self._live.remove_task(self._pass)
            if self._training is None:
                self._live.stop()
                self._live = None
        self._pass = None


def _new_display(transient: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    console = Console(stderr=True)
    bar = max(0, min(BAR, console.width - WITHOUT_BAR))

    class Description(ProgressColumn):
        """The name of the work, and the epoch under way."""

        def render(self, task: Task) -> Text:
            return Text(task.description, no_wrap=True)

    class Figures(ProgressColumn):
        """The share that is done and as many figures as there is room for, the time left first of all."""

        def render(self, task: Task) -> Text:
            described = max(len(each.description) for each in display.tasks)
            share = "" if task.total is None else f"{task.percentage:>3.0f} %  "  # unknown before the first step
            room = console.width - described - bar - len(share) - (2 if bar else 1)
            return Text(share + _that_fit(task.fields["figures"], room), no_wrap=True)

    bars = (BarColumn(bar_width=bar),) if bar else ()
    display = Progress(
        Description(Column(no_wrap=True)), *bars, Figures(Column(no_wrap=True)), console=console, transient=transient
    )
    return display


def _that_fit(figures: list[str], room: int) -> str:
    """Join the figures, without the last but one as long as they are too many for a line."""
    kept = [*figures]
    while len(kept) > 1 and len(", ".join(kept)) > room:
        del kept[-2]
    return ", ".join(kept)
