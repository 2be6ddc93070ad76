"""The bounds of batches, and the fall of the learning rate."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.training.batches import batch_bounds
from m2sd_cli.training.loop import learning_rate


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


@given(st.floats(1e-6, 10), st.integers(1, 1000))
def test_the_learning_rate_falls_from_the_start_to_nothing(start: float, steps: int) -> None:
    rates = [learning_rate(start, step, steps) for step in range(steps + 1)]
    assert rates[0] == start
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert all(rate + rates[steps - step] == pytest.approx(start) for step, rate in enumerate(rates))


def test_the_learning_rate_is_half_a_cosine() -> None:
    assert learning_rate(0.1, 50, 100) == pytest.approx(0.05)
    assert learning_rate(0.1, 25, 100) == pytest.approx(0.05 * (1 + math.sqrt(0.5)))
    assert learning_rate(0.1, 75, 100) == pytest.approx(0.05 * (1 - math.sqrt(0.5)))
