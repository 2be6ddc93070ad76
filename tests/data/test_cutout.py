"""Cutout of batches against a loop over pixels that replays the same draws."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m2sd_cli.data.cutout import cutout
from tests.data.helpers import generator


def by_hand(x: Tensor, side: int, seed: int) -> Tensor:
    batch, _, size, _ = x.shape
    centres = torch.randint(0, size, (2, batch, 1), generator=generator(seed))[..., 0].tolist()
    result = x.clone()
    for n in range(batch):
        top, left = centres[0][n] - side // 2, centres[1][n] - side // 2
        for row in range(top, top + side):
            for column in range(left, left + side):
                if 0 <= row < size and 0 <= column < size:
                    result[n, :, row, column] = 0
    return result


@given(st.integers(1, 5), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
def test_each_image_has_a_hole_of_its_own(batch: int, size: int, share: float, seed: int) -> None:
    x = 1 + torch.rand(batch, 3, size, size, generator=generator(7))
    side = max(1, round(share * size))
    cut = cutout(x, share, generator(seed))
    assert torch.equal(cut, by_hand(x, side, seed))
    hidden = (cut == 0).all(dim=1).sum(dim=(1, 2))
    assert hidden.min() >= 1  # a pixel of the image is its centre
    assert hidden.max() <= side * side


def test_type_and_memory_format_are_kept() -> None:
    x = torch.ones(2, 3, 8, 8, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    cut = cutout(x, 0.25, generator())
    assert cut.dtype == torch.bfloat16
    assert cut.is_contiguous(memory_format=torch.channels_last)
    assert (x == 1).all()  # what was given is as it was


def test_every_place_is_as_likely_as_another() -> None:
    centres = (cutout(torch.ones(4000, 1, 4, 4), 0.0, generator()) == 0).float().mean(dim=(0, 1))
    torch.testing.assert_close(centres, torch.full((4, 4), 1 / 16), rtol=0, atol=0.02)
