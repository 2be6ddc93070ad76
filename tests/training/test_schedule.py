"""The bounds of batches, and the fall of the learning rate."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.training.batches import batch_bounds
from m2sd_cli.training.schedules import learning_rate


@given(st.integers(1, 5000), st.integers(2, 600))
def test_batches_cover_every_image_once_and_none_is_a_single_image(images: int, batch_size: int) -> None:
    bounds = batch_bounds(images, batch_size)
    assert [image for begin, end in bounds for image in range(begin, end)] == list(range(images))
    sizes = [end - begin for begin, end in bounds]
    assert all(size == batch_size for size in sizes[:-1])
    assert min(2, images) <= sizes[-1] <= batch_size + 1
    assert (sizes[-1] == batch_size + 1) == (images > batch_size and images % batch_size == 1)


@pytest.mark.parametrize(
    ("images", "batch_size", "expected"),
    [
        (6, 3, [(0, 3), (3, 6)]),
        (8, 3, [(0, 3), (3, 6), (6, 8)]),
        (7, 3, [(0, 3), (3, 7)]),
        (2, 256, [(0, 2)]),
        (257, 256, [(0, 257)]),
        (1, 4, [(0, 1)]),
    ],
)
def test_batches_of_an_epoch(images: int, batch_size: int, expected: list[tuple[int, int]]) -> None:
    assert batch_bounds(images, batch_size) == expected


def rates(epochs: int, epoch_steps: int, **options: Any) -> list[float]:
    config = PretrainConfig(epochs=epochs, **options)
    return [learning_rate(config, step, epoch_steps) for step in range(epochs * epoch_steps)]


@given(st.floats(1e-6, 10), st.integers(1, 1000))
def test_the_learning_rate_falls_from_the_start_to_nothing(start: float, steps: int) -> None:
    config = PretrainConfig(epochs=steps, learning_rate=start)
    falling = [learning_rate(config, step, 1) for step in range(steps + 1)]
    assert falling[0] == start
    assert falling[-1] == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))
    assert all(rate + falling[steps - step] == pytest.approx(start) for step, rate in enumerate(falling))


def test_a_cosine_is_computed_as_always_bit_for_bit() -> None:
    assert rates(10, 37) == [0.1 * 0.5 * (1 + math.cos(math.pi * step / 370)) for step in range(370)]


def test_a_warm_up_rises_to_the_rate_at_which_the_cosine_begins() -> None:
    warmed = rates(4, 6, warmup_epochs=0.5, learning_rate=1.0)
    assert warmed[:4] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert warmed[3:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 21)) for step in range(21)])


def test_multistep_lowers_the_rate_after_each_milestone() -> None:
    common: dict[str, Any] = {"schedule": "multistep", "learning_rate": 1.0}
    assert rates(5, 1, milestones="2,4", **common) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rates(5, 2, gamma=0.5, **common) == pytest.approx([1] * 6 + [0.5] * 2 + [0.25] * 2)
    assert rates(3, 2, milestones="2", warmup_epochs=1.0, **common) == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.1, 0.1])
    assert rates(1, 2, **common) == [1, 1]  # of one epoch 60 % is all, and 80 % too


def test_a_constant_rate_stays() -> None:
    assert rates(3, 2, schedule="constant", warmup_epochs=0.5) == pytest.approx([0.05, *[0.1] * 5])
