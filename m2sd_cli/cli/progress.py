"""How a training is shown: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from m2sd_cli.cli.output import duration, note
from m2sd_cli.launch import speaks
from m2sd_cli.training.progress import Progress, Silent, Snapshot

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


@contextmanager
def watch(stage: str, quiet: bool) -> Iterator[Progress]:
    """The progress of one stage, fit for whatever stderr is."""
    if quiet or not speaks():
        yield Silent()
    elif not sys.stderr.isatty():
        yield Lines(stage)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=False) as bars:
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

            yield Bar()
