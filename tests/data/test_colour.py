"""Colour jitter of batches against torchvision's functions, image by image, and a loop over pixels."""

import pytest
import torch
import torchvision.transforms.functional as torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.data.colour import jitter
from tests.data.helpers import generator


def random_images(batch: int, seed: int = 9) -> Tensor:
    return torch.randint(0, 256, (batch, 3, 5, 4), generator=generator(seed), dtype=torch.uint8)


def factors(batch: int, strength: float, seed: int) -> list[list[float]]:
    draw = torch.rand(3, batch, 1, 1, 1, generator=generator(seed)).flatten(1).double()
    result: list[list[float]] = (1 + strength * (2 * draw - 1)).tolist()
    return result


def by_hand(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Pixel by pixel in float64."""

    def cut(value: float) -> float:
        return min(max(value, 0.0), 255.0)

    def grey(pixel: list[float]) -> float:
        return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]

    pixels = [[cut(value * brightness) for value in pixel] for pixel in image.double().flatten(1).T.tolist()]
    mean = sum(map(grey, pixels)) / len(pixels)
    pixels = [[cut(contrast * value + (1 - contrast) * mean) for value in pixel] for pixel in pixels]
    pixels = [[cut(saturation * value + (1 - saturation) * grey(pixel)) for value in pixel] for pixel in pixels]
    return torch.tensor(pixels, dtype=torch.float64).T.view(image.shape)


@given(st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_each_image_is_changed_by_factors_of_its_own(batch: int, strength: float, seed: int) -> None:
    images = random_images(batch)
    jittered = jitter(images, strength, generator(seed))
    assert (jittered.shape, jittered.dtype) == (images.shape, torch.float32)
    assert jittered.min() >= 0
    assert jittered.max() <= 255
    for image, original, *drawn in zip(jittered, images, *factors(batch, strength, seed), strict=True):
        torch.testing.assert_close(image.double(), by_hand(original, *drawn), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
def test_it_is_torchvisions(strength: float) -> None:
    images = random_images(6)
    for jittered, original, brightness, contrast, saturation in zip(
        jitter(images, strength, generator(3)), images, *factors(6, strength, 3), strict=True
    ):
        expected = torchvision.adjust_brightness(original.float() / 255, brightness)
        expected = torchvision.adjust_contrast(expected, contrast)
        expected = torchvision.adjust_saturation(expected, saturation)
        # Its weights of grey have a fourth digit.
        torch.testing.assert_close(jittered, 255 * expected, rtol=0, atol=0.1)


def test_without_strength_nothing_changes_and_floats_are_taken_as_they_are() -> None:
    images = random_images(3)
    torch.testing.assert_close(jitter(images, 0.0, generator()), images.float())
    torch.testing.assert_close(jitter(images.float(), 0.5, generator(1)), jitter(images, 0.5, generator(1)))


def test_the_memory_format_is_kept() -> None:
    images = random_images(3).contiguous(memory_format=torch.channels_last)
    assert jitter(images, 0.5, generator()).is_contiguous(memory_format=torch.channels_last)
