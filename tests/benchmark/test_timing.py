"""Rounds, ratios and numbers of steps, by a clock that the tests wind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.benchmark.timing import Measurements, alternate, ratios, steps_for


class Machine:
    """Its clock moves by what is done on it; each workload says how long its n-th run's steps take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now


class Job:
    """A workload on the machine."""

    images = 4

    def __init__(self, machine: Machine, name: str, *seconds: float, preparing: float = 0.0) -> None:
        self.machine, self.name, self.seconds, self.preparing = machine, name, list(seconds), preparing
        self.done = 0

    def prepare(self, steps: int) -> None:
        self.machine.log.append(f"{self.name} prepares {steps}")
        self.machine.now += self.preparing

    def run(self, steps: int) -> None:
        self.machine.log.append(f"{self.name} {steps}")
        self.machine.now += steps * self.seconds[min(self.done, len(self.seconds) - 1)]
        self.done += 1

    def close(self) -> None:
        pass


def test_rounds_go_forwards_and_backwards_and_count_seconds_a_step() -> None:
    machine = Machine()
    jobs = {"a": Job(machine, "a", 1.0, 2.0, 3.0), "b": Job(machine, "b", 10.0, 20.0, 30.0)}
    seconds = alternate(jobs, {"a": 5, "b": 2}, 3, machine.clock)
    assert seconds == {"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]}
    runs = [line for line in machine.log if "prepares" not in line]
    assert runs == ["a 5", "b 2", "b 2", "a 5", "a 5", "b 2"]


def test_preparing_is_not_timed() -> None:
    machine = Machine()
    jobs = {"a": Job(machine, "a", 1.0, preparing=100.0)}
    assert alternate(jobs, {"a": 3}, 2, machine.clock) == {"a": [1.0, 1.0]}
    assert machine.log == ["a prepares 3", "a 3"] * 2


def test_a_ratio_is_taken_in_each_round() -> None:
    machine = Machine()
    slow_while = [1.0, 1.0, 50.0, 3.0, 3.0]  # whatever else the machine did
    jobs = {name: Job(machine, name, *(base * each for each in slow_while)) for name, base in (("x", 2.0), ("y", 5.0))}
    seconds = alternate(jobs, {"x": 1, "y": 1}, 5, machine.clock)
    ratio = ratios(seconds["y"], seconds["x"])
    assert ratio.rounds == pytest.approx([2.5] * 5)
    assert (ratio.min, ratio.median, ratio.max) == pytest.approx((2.5, 2.5, 2.5))


def test_the_median_ratio_is_not_the_ratio_of_medians() -> None:
    assert ratios([1.0, 10.0, 9.0], [1.0, 2.0, 9.0]).median == 1.0
    assert Measurements.of([1.0, 10.0, 9.0]).median / Measurements.of([1.0, 2.0, 9.0]).median == 4.5


def test_ratios_need_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


def test_measurements_keep_the_order_of_the_rounds() -> None:
    found = Measurements.of([3.0, 1.0, 2.0, 8.0])
    assert (found.median, found.min, found.max, found.rounds) == (2.5, 1.0, 8.0, (3.0, 1.0, 2.0, 8.0))


@given(st.floats(1e-5, 10), st.floats(1e-3, 100))
def test_as_many_steps_as_fill_the_time(step: float, wanted: float) -> None:
    machine = Machine()
    steps = steps_for(Job(machine, "a", step), wanted, machine.clock)
    assert steps >= 1
    assert steps == 1 or abs(steps * step - wanted) <= step * (0.5 + 1e-6)
    assert machine.now <= max(step, wanted)  # finding out takes no longer than what is found out
