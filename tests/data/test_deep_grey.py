"""Grey images of more than eight bits: as bright as they were meant, or refused in one line."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m2sd_cli.data.images import open_rgb
from m2sd_cli.errors import ImageError
from tests.data.helpers import png_chunk, save
from tests.data.test_images import png_of_16_bits

GREY = np.linspace(0, 255, 24 * 16).astype(np.uint8).reshape(16, 24)
SHARE = GREY.astype(np.float32) / 255
SMALLEST, LARGEST, MAX_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 340, 341, 281, 262, 339


def read(folder: Path, numbers: Any, name: str = "a.tif", **options: Any) -> Any:
    rgb = np.asarray(open_rgb(save(folder, Image.fromarray(numbers), name, **options)))
    assert np.array_equal(rgb[..., 0], rgb[..., 1])
    assert np.array_equal(rgb[..., 0], rgb[..., 2])
    return rgb[..., 0]


@pytest.mark.parametrize("white", [1, 255, 4095, 65535])
def test_floats_are_scaled_by_their_range(tmp_path: Path, white: int) -> None:
    assert np.array_equal(read(tmp_path, SHARE * np.float32(white)), GREY)


def test_floats_a_little_outside_of_their_range_are_cut(tmp_path: Path) -> None:
    numbers = SHARE.copy()
    numbers[0, 0], numbers[-1, -1] = -0.04, 1.06  # as resampling leaves them
    assert np.array_equal(read(tmp_path, numbers), GREY)


def test_a_black_image_of_floats_is_black(tmp_path: Path) -> None:
    assert not read(tmp_path, 0 * SHARE).any()


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_integers_are_scaled_by_the_bits_that_hold_them(tmp_path: Path, bits: int, suffix: str) -> None:
    assert np.array_equal(read(tmp_path, GREY.astype(np.uint16) << (bits - 8), f"a.{suffix}"), GREY)


@pytest.mark.parametrize("factor", [1, 16, 257])
def test_wide_integers_are_scaled_as_short_ones(tmp_path: Path, factor: int) -> None:
    assert np.array_equal(read(tmp_path, GREY.astype(np.int32) * factor), GREY)


@pytest.mark.parametrize(
    ("numbers", "tags"),
    [
        (SHARE * 10, {LARGEST: 10.0}),
        (SHARE * 2 - 1, {SMALLEST: -1.0, LARGEST: 1.0}),
        (SHARE * 1e6, {LARGEST: 1e6}),
        (GREY.astype(np.int32) * 100_000, {LARGEST: 25_500_000}),
    ],
)
def test_a_range_that_the_tags_name_is_taken(tmp_path: Path, numbers: Any, tags: dict[int, float]) -> None:
    assert np.abs(read(tmp_path, numbers.astype(numbers.dtype), tiffinfo=tags).astype(int) - GREY).max() <= 1


def test_a_dark_image_stays_dark_if_a_tag_says_so(tmp_path: Path) -> None:
    assert read(tmp_path, GREY.astype(np.uint16), tiffinfo={MAX_SAMPLE: 65535}).max() == 0
    assert np.array_equal(read(tmp_path, GREY.astype(np.uint16), tiffinfo={MAX_SAMPLE: 9}), GREY)  # which is not true


def test_white_may_be_zero(tmp_path: Path) -> None:
    assert np.array_equal(read(tmp_path, GREY.astype(np.uint16) * 257, tiffinfo={PHOTOMETRIC: 0}), 255 - GREY)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (np.where(GREY > 100, np.float32("nan"), SHARE), r"numbers that are not finite \(NaN or infinity\)"),
        (np.where(GREY > 100, np.float32("inf"), SHARE), r"numbers that are not finite \(NaN or infinity\)"),
        (SHARE * 2 - 1, "numbers from -1 on, and nothing says which is black"),
        (SHARE * 10, "numbers up to 10, and nothing says which is white"),
        (SHARE * 1e6, r"numbers up to 1e\+06, and nothing says which is white"),
        (GREY.astype(np.int32) * 1000, "numbers up to 255000, and nothing says which is white"),
        (GREY.astype(np.int32) - 100, "numbers from -100 on, and nothing says which is black"),
    ],
)
def test_numbers_of_unknown_brightness_are_refused(tmp_path: Path, numbers: Any, says: str) -> None:
    with pytest.raises(ImageError, match=rf"a\.tif: {says}; save it with 8 bits, as a png$"):
        read(tmp_path, numbers)


@pytest.mark.parametrize(("kind", "width"), [(2, 3), (6, 4), (4, 2)])
def test_colour_of_which_the_upper_bits_are_lost_is_refused(tmp_path: Path, kind: int, width: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of_16_bits(kind, [4095] * width))
    with pytest.raises(ImageError, match=r"a\.png: 16 bits a colour, and only the lower 12 are used; save it with 8"):
        open_rgb(path)
    path.write_bytes(png_of_16_bits(kind, [0] * (width - 1) + [65535]))
    open_rgb(path)


def test_signed_bytes_of_a_tiff_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.tif: signed bytes, and nothing says which is black; save it with 8"):
        read(tmp_path, GREY, tiffinfo={SAMPLE_FORMAT: 2})
    assert np.array_equal(read(tmp_path, GREY, tiffinfo={SAMPLE_FORMAT: 1}), GREY)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_megabytes_of_text_or_profile_do_not_matter(tmp_path: Path, name: bytes) -> None:
    before = {b"zTXt": b"a\x00\x00", b"iTXt": b"a\x00\x01\x00\x00\x00", b"iCCP": b"a\x00\x00"}[name]
    path = save(tmp_path, Image.fromarray(GREY), "a.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + png_chunk(name, before + zlib.compress(bytes(5_000_000))) + whole[33:])
    assert np.array_equal(np.asarray(open_rgb(path))[..., 0], GREY)
