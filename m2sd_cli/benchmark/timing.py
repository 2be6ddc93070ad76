"""Measurement of several workloads in turn, so that a disturbance of the machine affects all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, Self

Clock = Callable[[], float]  # seconds


class Workload(Protocol):
    """Work that is done step by step."""

    @property
    def images(self) -> int:
        """Images of a step."""

    def prepare(self, steps: int) -> None:
        """Prepare for a number of steps; this is not timed."""

    def run(self, steps: int) -> None:
        """Do a number of steps, and return when the device has finished them."""

    def close(self) -> None:
        """End the processes of the workload."""


@dataclass(frozen=True)
class Measurements:
    """Several measurements of one quantity."""

    median: float
    min: float
    max: float
    rounds: tuple[float, ...]  # in the order in which they were taken

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise measurements.

        Raises:
            StatisticsError: there is no measurement.
        """
        return cls(median(values), min(values), max(values), tuple(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Measurements:
    """Divide two quantities that were measured in the same rounds, round by round.

    A machine that is slow for a while slows both quantities of a round. The ratio of two medians would compare a slow
    round with a fast one.
    """
    return Measurements.of([a / b for a, b in zip(above, below, strict=True)])


def alternate(
    workloads: Mapping[str, Workload],
    steps: Mapping[str, int],
    rounds: int,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Time the workloads in turn; every second round is backwards, which evens out a steady drift.

    Args:
        workloads: by name.
        steps: of each workload in a round.

    Returns:
        The seconds a step of each workload, round by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    for number in range(rounds):
        names = list(workloads) if number % 2 == 0 else list(workloads)[::-1]
        for name in names:
            seconds[name].append(_timed(workloads[name], steps[name], clock) / steps[name])
    return seconds


def steps_for(workload: Workload, seconds: float, clock: Clock = time.perf_counter) -> int:
    """Find the number of steps that take about `seconds`, at least one.

    The number is doubled until the steps take a fifth of `seconds`: a few short steps tell little.
    """
    steps = 1
    while (took := _timed(workload, steps, clock)) < seconds / 5:
        steps *= 2
    return max(1, round(steps * seconds / took))


def _timed(workload: Workload, steps: int, clock: Clock) -> float:
    workload.prepare(steps)
    began = clock()
    workload.run(steps)
    return clock() - began
