"""Augmentation of whole batches against loops over images that replay the same draws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation, random_box, random_crop, random_flip, resized_crop
from tests.data.helpers import generator

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def random_images(batch: int, height: int = 6, width: int = 5) -> Tensor:
    """No pixel is black, so that the padding shows."""
    return torch.randint(1, 256, (batch, height, width, 3), generator=generator(99), dtype=torch.uint8)


def plain_crop(images: Tensor, padding: int, flip: bool, stream: torch.Generator) -> Tensor:
    batch, height, width, _ = images.shape
    corners = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=stream)[..., 0].tolist()
    mirrored = (torch.rand(batch, generator=stream) < 0.5).tolist() if flip else [False] * batch
    result = torch.zeros(batch, 3, height, width, dtype=torch.uint8)
    for n in range(batch):
        for i in range(height):
            for j in range(width):
                row = i + corners[0][n] - padding
                column = (width - 1 - j if mirrored[n] else j) + corners[1][n] - padding
                if 0 <= row < height and 0 <= column < width:
                    result[n, :, i, j] = images[n, row, column]
    return result


def plain_boxes(aspects: list[float], draws: list[list[list[float]]]) -> list[list[float]]:
    """draws[what][attempt][image]; the first attempt that fits is taken."""
    boxes = []
    for n, aspect in enumerate(aspects):
        box = None
        for attempt in range(len(draws[0])):
            share = AREA[0] + (AREA[1] - AREA[0]) * draws[0][attempt][n]
            box_aspect = math.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * draws[1][attempt][n])
            # In pixels of an image of height 1 and width `aspect`.
            width, height = math.sqrt(share * aspect * box_aspect), math.sqrt(share * aspect / box_aspect)
            if width <= aspect and height <= 1:
                box = (width / aspect, height)
                break
        if box is None:
            box = (1.0, 1.0)
            if aspect < RATIO[0]:
                box = (1.0, aspect / RATIO[0])
            elif aspect > RATIO[1]:
                box = (RATIO[1] / aspect, 1.0)
            boxes.append([(1 - box[0]) / 2, (1 - box[1]) / 2, *box])
        else:
            boxes.append([draws[2][0][n] * (1 - box[0]), draws[3][0][n] * (1 - box[1]), *box])
    return boxes


def plain_resized(image: Tensor, box: list[float], size: int, mirrored: bool) -> Tensor:
    """Bilinear between the centres of pixels, the border continued."""
    side = image.shape[0]
    result = torch.zeros(3, size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            across = (size - 1 - j if mirrored else j) + 0.5
            y = min(max((box[1] + box[3] * (i + 0.5) / size) * side - 0.5, 0), side - 1)
            x = min(max((box[0] + box[2] * across / size) * side - 0.5, 0), side - 1)
            top, left = min(int(y), side - 2), min(int(x), side - 2)
            for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
                for column, right in ((left, 1 - (x - left)), (left + 1, x - left)):
                    result[:, i, j] += down * right * image[row, column].double()
    return result


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_random_crop_image_by_image(padding: int, flip: bool) -> None:
    images = random_images(12)
    result = random_crop(images, padding, flip, generator(1))
    assert result.dtype == torch.uint8
    assert torch.equal(result, plain_crop(images, padding, flip, generator(1)))


def test_random_crop_without_padding_and_flip_changes_nothing() -> None:
    images = random_images(3)
    assert torch.equal(random_crop(images, 0, False, generator()), images.permute(0, 3, 1, 2))


def test_random_crop_shifts_by_every_distance_equally_often() -> None:
    """One white pixel in the middle of a black image shows where the crop began."""
    draws = 20_000
    image = torch.zeros(1, 5, 5, 3, dtype=torch.uint8)
    image[0, 2, 2] = 255
    result = random_crop(image.expand(draws, -1, -1, -1), 2, False, generator())
    counts = (result[:, 0] == 255).sum(dim=0)
    assert int(counts.sum()) == draws
    allowed = 5 * math.sqrt(draws / 25 * 24 / 25)
    assert float((counts - draws / 25).abs().amax()) < allowed


def test_random_flip_is_a_fair_coin() -> None:
    flips = random_flip(10_000, generator())
    assert flips.dtype == torch.bool
    assert flips.shape == (10_000,)
    assert abs(float(flips.double().mean()) - 0.5) < 0.025


def test_both_crops_flip_every_second_image_on_average() -> None:
    image = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    image[:, :, 3] = 200
    images, whole = image.expand(2000, -1, -1, -1), torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2000, 4)
    for result in (random_crop(images, 0, True, generator()), resized_crop(images, whole, 4, True, generator())):
        assert abs(float((result[:, 0, 0, 0] > 100).double().mean()) - 0.5) < 0.06
    for result in (random_crop(images, 0, False, generator()), resized_crop(images, whole, 4, False, generator())):
        assert float((result[:, 0, 0, 0] > 100).double().mean()) == 0.0


@pytest.mark.parametrize("tries", [1, 10])
def test_random_box_image_by_image(tries: int) -> None:
    aspects = [0.05, 0.3, 0.5, 0.75, 1.0, 1.0, 1.2, 4 / 3, 2.0, 3.5, 20.0] * 20
    result = random_box(torch.tensor(aspects), AREA, RATIO, generator(2), tries)
    draws = torch.rand(4, tries, len(aspects), generator=generator(2)).tolist()
    torch.testing.assert_close(result, torch.tensor(plain_boxes(aspects, draws)), rtol=1e-4, atol=1e-5)


@given(
    st.lists(st.floats(0.02, 50), min_size=1, max_size=6),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    st.integers(0, 999),
)
def test_a_box_is_inside_its_image_and_of_bounded_area_and_aspect(
    aspects: list[float], area: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    area, ratio = (min(area), max(area)), (min(ratio), max(ratio))
    boxes = random_box(torch.tensor(aspects), area, ratio, generator(seed)).tolist()
    for aspect, (left, top, width, height) in zip(aspects, boxes, strict=True):
        assert width > 0
        assert height > 0
        assert left >= 0
        assert top >= 0
        assert left + width <= 1 + 1e-6
        assert top + height <= 1 + 1e-6
        assert ratio[0] * (1 - 1e-4) <= aspect * width / height <= ratio[1] * (1 + 1e-4)
        central = max(width, height) > 1 - 1e-6 and abs(left + width / 2 - 0.5) + abs(top + height / 2 - 0.5) < 1e-6
        assert central or area[0] * (1 - 1e-4) <= width * height <= area[1] * (1 + 1e-4)


def test_boxes_are_uniform_in_area_log_aspect_and_place() -> None:
    """Small boxes always fit, so that no draw is turned down; each is then uniform between its bounds."""
    count = 20_000
    left, top, width, height = random_box(torch.ones(count), (0.1, 0.3), RATIO, generator()).double().unbind(dim=1)
    aspect = (width / height).log() / math.log(4 / 3)
    observed = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    for sample in ((width * height - 0.1) / 0.2, (aspect + 1) / 2, left / (1 - width), top / (1 - height)):
        assert float((sample.sort().values - observed).abs().amax()) < 1.95 / math.sqrt(count)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [4, 7, 13])
def test_resized_crop_image_by_image(size: int, flip: bool) -> None:
    images = random_images(6, 8, 8)
    boxes = random_box(torch.ones(6), AREA, RATIO, generator(1))
    result = resized_crop(images, boxes, size, flip, generator(4))
    assert result.dtype == torch.float32
    mirrored = (torch.rand(6, generator=generator(4)) < 0.5).tolist() if flip else [False] * 6
    assert any(mirrored) == flip
    for n in range(6):
        expected = plain_resized(images[n], boxes[n].tolist(), size, mirrored[n])
        torch.testing.assert_close(result[n].double(), expected, rtol=0, atol=0.01)


def test_cutting_out_everything_is_the_image_or_its_mirror() -> None:
    images = random_images(10, 9, 9)
    upright = images.permute(0, 3, 1, 2).float()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(10, 4)
    torch.testing.assert_close(resized_crop(images, whole, 9, False, generator()), upright, rtol=0, atol=0.01)
    mirrored = random_flip(10, generator(3))
    assert 0 < int(mirrored.sum()) < 10
    expected = torch.where(mirrored[:, None, None, None], upright.flip(3), upright)
    torch.testing.assert_close(resized_crop(images, whole, 9, True, generator(3)), expected, rtol=0, atol=0.01)


def test_a_quarter_of_the_image_is_that_quarter() -> None:
    images = random_images(1, 8, 8)
    box = torch.tensor([[0.5, 0.25, 0.5, 0.5]])
    result = resized_crop(images, box, 4, False, generator())
    torch.testing.assert_close(result, images[:, 2:6, 4:8].permute(0, 3, 1, 2).float(), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("augmentation", "stored", "dtype"),
    [
        (Augmentation(size=8, padding=2), 8, torch.uint8),
        (Augmentation(size=6, store=8), 8, torch.float32),
        (Augmentation(size=33, store=21), 21, torch.float32),
    ],
)
def test_an_augmentation_gives_a_batch_for_the_network(
    augmentation: Augmentation, stored: int, dtype: torch.dtype
) -> None:
    images, aspects = random_images(4, stored, stored), torch.tensor([0.5, 1.0, 1.5, 9.0])
    result = augmentation(images, aspects, generator(1))
    assert result.shape == (4, 3, augmentation.size, augmentation.size)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert 0 < float(result.float().amax()) <= 255
    assert torch.equal(result, augmentation(images, aspects, generator(1)))
    assert not torch.equal(result, augmentation(images, aspects, generator(2)))


def test_an_augmentation_is_its_parts() -> None:
    images, aspects = random_images(5, 8, 8), torch.tensor([0.5, 1.0, 1.5, 9.0, 1.0])
    padded = Augmentation(size=8, padding=3)(images, aspects, generator(1))
    assert torch.equal(padded, plain_crop(images, 3, True, generator(1)))
    stream = generator(1)
    boxes = random_box(aspects, (0.2, 0.6), (0.5, 1.0), stream)
    expected = resized_crop(images, boxes, 6, False, stream)
    resized = Augmentation(size=6, store=8, flip=False, area=(0.2, 0.6), aspect=(0.5, 1.0))
    assert torch.equal(resized(images, aspects, generator(1)), expected)
