"""A part of a source is read as that part of the whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from m2sd_cli.data.sources import ArrayImages, FileImages, ImageSource
from m2sd_cli.data.transforms import TestTransform

COUNT = 7
TRANSFORM = TestTransform(resize=8, crop=8, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(params=["array", "files"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSource:
    images = torch.randint(0, 256, (COUNT, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(COUNT)
    if request.param == "array":
        return ArrayImages(images, labels)
    for number, image in enumerate(images):
        Image.fromarray(image.numpy()).save(tmp_path / f"{number}.png")
    return FileImages(tuple(tmp_path / f"{number}.png" for number in range(COUNT)), labels)


def joined(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[int]]:
    parts = list(batches)
    assert all(0 < len(pixels) <= 2 for pixels, _ in parts)
    return torch.cat([pixels for pixels, _ in parts]), [label for _, labels in parts for label in labels.tolist()]


@pytest.mark.parametrize("way", ["batches", "for_testing"])
@pytest.mark.parametrize("shard", [slice(0, 3), slice(3, 7), slice(6, 7), slice(0, 7)])
def test_a_shard_is_that_part_of_the_whole(source: ImageSource, way: str, shard: slice) -> None:
    read = getattr(source, way)
    everything, _ = joined(read(TRANSFORM, 2))
    pixels, labels = joined(read(TRANSFORM, 2, shard))
    assert labels == list(range(COUNT))[shard]
    assert torch.equal(pixels, everything[shard])


@pytest.mark.parametrize("way", ["batches", "for_testing"])
def test_an_empty_shard_has_no_batches(source: ImageSource, way: str) -> None:
    assert list(getattr(source, way)(TRANSFORM, 2, slice(4, 4))) == []
