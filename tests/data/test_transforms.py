"""The test transform against torchvision's."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform, normalise, to_tensor

SIZES = [(500, 375), (375, 500), (500, 333), (500, 335), (334, 500), (257, 256), (261, 999), (40, 30), (84, 84), (1, 3)]


def noise(width: int, height: int) -> Image.Image:
    """Noise over a slope: whatever is shifted by a pixel differs everywhere."""
    values = np.random.default_rng(0).integers(0, 200, (height, width, 3))
    values += np.linspace(0, 55, width).astype(int)[None, :, None]
    return Image.fromarray(values.astype(np.uint8))


def theirs(image: Image.Image, resize: int | list[int], crop: int) -> Tensor:
    steps = v2.Compose([v2.Resize(resize), v2.CenterCrop(crop), v2.PILToTensor()])
    result: Tensor = steps(image)
    return result


def transform(resize: int, crop: int, squash: bool = False) -> TestTransform:
    return TestTransform(resize=resize, crop=crop, mean=IMAGENET_MEAN, std=IMAGENET_STD, squash=squash)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (92, 84), (37, 32), (32, 32)])
def test_pixels_are_those_of_torchvision(size: tuple[int, int], resize: int, crop: int) -> None:
    image = noise(*size)
    result = transform(resize, crop).pixels(image)
    assert result.dtype == torch.uint8
    assert torch.equal(result, theirs(image, resize, crop))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize", "crop"), [(92, 84), (37, 32), (32, 32)])
def test_squashed_pixels_are_those_of_torchvision(size: tuple[int, int], resize: int, crop: int) -> None:
    image = noise(*size)
    expected = theirs(image, [resize, resize], crop)
    assert torch.equal(transform(resize, crop, squash=True).pixels(image), expected)


def test_an_image_of_the_right_size_is_left_untouched() -> None:
    image = noise(32, 32)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(transform(32, 32).pixels(image), expected)
    assert torch.equal(to_tensor(image), expected)


def test_the_image_itself_does_not_change() -> None:
    image = noise(50, 40)
    before = image.copy()
    pixels = transform(37, 32).pixels(image)
    pixels.zero_()
    assert image.size == (50, 40)
    assert image.tobytes() == before.tobytes()


def test_normalise_is_the_formula() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
    assert result.dtype == torch.float32
    for n, image in enumerate(pixels.tolist()):
        for c, channel in enumerate(image):
            expected = [[(value / 255 - IMAGENET_MEAN[c]) / IMAGENET_STD[c] for value in row] for row in channel]
            torch.testing.assert_close(result[n, c], torch.tensor(expected))


def test_normalise_is_torchvisions_for_bytes_and_floats() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])
    expected = steps(pixels)
    ours = TestTransform(resize=16, crop=16, mean=mean, std=std)
    torch.testing.assert_close(ours.normalise(pixels), expected)
    torch.testing.assert_close(ours.normalise(pixels.float()), expected)


def test_normalise_keeps_channels_last() -> None:
    pixels = torch.zeros(2, 3, 4, 5, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert normalise(pixels, IMAGENET_MEAN, IMAGENET_STD).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", SIZES)
def test_bicubic_pixels_are_those_of_torchvision(size: tuple[int, int]) -> None:
    image = noise(*size)
    resize, crop, bicubic = 92, 84, v2.InterpolationMode.BICUBIC
    steps = v2.Compose([v2.Resize(resize, bicubic), v2.CenterCrop(crop), v2.PILToTensor()])
    sharper = TestTransform(resize, crop, IMAGENET_MEAN, IMAGENET_STD, interpolation="bicubic")
    assert torch.equal(sharper.pixels(image), steps(image))
