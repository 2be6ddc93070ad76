"""Views of an image against loops over its pixels."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.views import CORNERS, MOST_VIEWS, views
from m2sd_cli.runs.manifest import TransformRecord, Views

PIXELS = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def shifted(image: list[list[int]], down: int, right: int) -> list[list[int]]:
    last = len(image) - 1
    return [
        [image[min(max(y + down, 0), last)][min(max(x + right, 0), last)] for x in range(last + 1)]
        for y in range(last + 1)
    ]


def test_manifests_allow_as_many_as_there_are() -> None:
    for allowed in (Views, TransformRecord.__annotations__["views"]):
        limit = TypeAdapter(allowed).json_schema()
        assert (limit["minimum"], limit["maximum"]) == (1, MOST_VIEWS)
    _, option = get_args(DistillConfig.__annotations__["views"])
    assert (option.ge, option.le) == (1, MOST_VIEWS)


def test_the_first_views_are_the_image_and_its_mirror_image() -> None:
    (alone,) = views(PIXELS, 1)
    assert torch.equal(alone, PIXELS)
    first, second = views(PIXELS, 2)
    assert torch.equal(first, PIXELS)
    assert second[1, 2].tolist() == [row[::-1] for row in PIXELS[1, 2].tolist()]


def test_the_others_are_shifted_by_an_eighth() -> None:
    all_views = list(views(PIXELS, MOST_VIEWS))
    for number, (down, right) in enumerate(CORNERS, start=1):
        expected = shifted(PIXELS[0, 1].tolist(), 2 * down, 2 * right)
        assert all_views[2 * number][0, 1].tolist() == expected
        assert all_views[2 * number + 1][0, 1].tolist() == [row[::-1] for row in expected]


def test_no_two_are_alike_and_fewer_are_the_first_of_more() -> None:
    all_views = list(views(PIXELS, MOST_VIEWS))
    assert len({each.numpy().tobytes() for each in all_views}) == MOST_VIEWS == 18
    for count in (1, 2, 3, 7):
        assert all(map(torch.equal, views(PIXELS, count), all_views[:count]))


@pytest.mark.parametrize("pixels", [PIXELS[:, :, :1, :1], PIXELS[:0], PIXELS[:1, :, :7, :7]])
def test_any_size_and_number_of_images_keeps_its_shape(pixels: Tensor) -> None:
    for each in views(pixels, MOST_VIEWS):
        assert each.shape == pixels.shape
        assert each.dtype == torch.uint8
