"""Images of each step, gathered beforehand or not."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.training.batches import Batches

COUNT, SIZE = 7, 3  # batches of 3 and 4 images: a single one joins the last


def images() -> TrainingImages:
    numbers = torch.arange(COUNT)
    return TrainingImages(numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3), 1.0 + numbers, 10 * numbers)


def order(epoch: int) -> Tensor:
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(epoch))


@pytest.fixture(params=[False, True], ids=["in time", "ahead"])
def batches(request: pytest.FixtureRequest) -> Iterator[Batches]:
    made = Batches(images(), SIZE, order, torch.device("cpu"), ahead=request.param)
    yield made
    made.close()


def expected(step: int) -> list[int]:
    epoch, number = divmod(step, 2)
    return order(epoch).tolist()[:3] if number == 0 else order(epoch).tolist()[3:]


def check(batches: Batches, step: int) -> None:
    pixels, aspects, labels = batches.take(step)
    assert pixels.shape == (len(labels), 2, 2, 3)
    assert pixels[:, 0, 0, 0].tolist() == expected(step)
    assert aspects.tolist() == [1.0 + each for each in expected(step)]
    assert labels.tolist() == [10 * each for each in expected(step)]


def test_every_step_in_turn(batches: Batches) -> None:
    for step in range(7):
        check(batches, step)


def test_any_step_after_any_other_and_after_closing(batches: Batches) -> None:
    for step in (4, 1, 1, 2, 9):
        check(batches, step)
    batches.close()
    batches.close()
    check(batches, 10)


def test_what_fails_while_gathering_fails_in_the_step() -> None:
    broken = Batches(images(), SIZE, lambda epoch: order(epoch) + COUNT, torch.device("cpu"), ahead=True)
    with pytest.raises(IndexError):
        broken.take(0)
    broken.close()
