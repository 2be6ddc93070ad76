"""Images of every mode and kind that a person may have."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m2sd_cli.data.image_files import images_among, list_folder
from m2sd_cli.data.images import open_rgb
from m2sd_cli.errors import DataError
from tests.data.helpers import BLACK, GREEN, ORIENTATION, RED, SAVED_AS, WHITE, colour, noise, png_chunk, save


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp"])
def test_an_rgb_image_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    image = noise()
    read = open_rgb(save(tmp_path, image, name, **({"lossless": True} if name == "a.webp" else {})))
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), np.asarray(image))


def test_a_jpeg_is_read_nearly_as_it_is(tmp_path: Path) -> None:
    image = noise().resize((240, 160))
    read = open_rgb(save(tmp_path, image, "a.jpg", quality=100, subsampling=0))
    assert np.abs(np.asarray(read).astype(int) - np.asarray(image).astype(int)).max() < 8


def test_the_image_outlives_its_file(tmp_path: Path) -> None:
    path = save(tmp_path, noise())
    read = open_rgb(path)
    path.unlink()
    assert np.array_equal(np.asarray(read), np.asarray(noise()))


def test_grey_gives_three_equal_channels(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    read = np.asarray(open_rgb(save(tmp_path, Image.fromarray(values))))
    assert np.array_equal(read, np.stack([values] * 3, axis=2))


def test_black_and_white_gives_black_and_white(tmp_path: Path) -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    read = open_rgb(save(tmp_path, image))
    assert [colour(read, 0), colour(read, 1)] == [BLACK, WHITE]


def palette() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, 0, 0, 100])
    for x in range(3):
        image.putpixel((x, 0), x)
    return image


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    read = open_rgb(save(tmp_path, palette()))
    assert [colour(read, x) for x in range(3)] == [RED, GREEN, (0, 0, 100)]


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [
        (1, [RED, WHITE, (0, 0, 100)]),
        (bytes([255, 0, 255]), [RED, WHITE, (0, 0, 100)]),
        (bytes([51, 255, 0]), [(255, 204, 204), GREEN, WHITE]),
    ],
)
def test_a_transparent_palette_entry_is_laid_on_white(
    tmp_path: Path, transparency: int | bytes, expected: list[tuple[int, int, int]]
) -> None:
    read = open_rgb(save(tmp_path, palette(), transparency=transparency))
    assert [colour(read, x) for x in range(3)] == expected


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        image.putpixel((x, 0), (*RED, alpha))
    read = open_rgb(save(tmp_path, image))
    assert [colour(read, x) for x in range(3)] == [WHITE, (255, 204, 204), RED]


def test_grey_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("LA", (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        image.putpixel((x, 0), (0, alpha))
    read = open_rgb(save(tmp_path, image))
    assert [colour(read, x) for x in range(3)] == [WHITE, (204, 204, 204), BLACK]


@pytest.mark.parametrize(("mode", "value", "other"), [("L", 0, 9), ("RGB", RED, GREEN)])
def test_a_colour_declared_transparent_is_white(tmp_path: Path, mode: str, value: Any, other: Any) -> None:
    image = Image.new(mode, (2, 1), value)
    image.putpixel((1, 0), other)
    read = open_rgb(save(tmp_path, image, transparency=value))
    assert colour(read, 0) == WHITE
    assert colour(read, 1) == (GREEN if mode == "RGB" else (9, 9, 9))


def test_sixteen_bit_grey_keeps_its_upper_eight_bits(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 0x1234, 0x7FFF, 0x8000, 0xFF00, 0xFFFF]], dtype=np.uint16)
    path = save(tmp_path, Image.fromarray(values))
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    read = np.asarray(open_rgb(path))
    assert np.array_equal(read[0, :, 0], values[0] >> 8)
    assert np.array_equal(read[..., 0], read[..., 1])
    assert np.array_equal(read[..., 0], read[..., 2])


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    read = open_rgb(save(tmp_path, image, "a.jpg", quality=100))
    assert np.abs(np.array(colour(read, 8, 8)) - np.array(RED)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_image_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = noise()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    read = np.asarray(open_rgb(save(tmp_path, image, f"a.{suffix}", exif=exif, **options)))
    stored = np.asarray(image)
    turned = stored.transpose(1, 0, 2)
    expected = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: turned,
        6: turned[:, ::-1],
        7: turned[::-1, ::-1],
        8: turned[::-1],
    }[orientation]
    assert np.array_equal(read, expected)


def test_a_jpeg_of_a_phone_is_turned_upright(tmp_path: Path) -> None:
    """Orientation 6: the top of the scene is the left edge of what is stored."""
    image = Image.new("RGB", (32, 16), BLACK)
    image.paste(WHITE, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    read = open_rgb(save(tmp_path, image, "a.jpg", exif=exif, quality=95))
    assert read.size == (16, 32)
    assert min(colour(read, 8, 4)) > 240
    assert max(colour(read, 8, 28)) < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
def test_any_size_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    read = open_rgb(save(tmp_path, Image.new("RGB", size, GREEN)))
    assert read.size == size
    assert colour(read) == GREEN


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), each) for each in (RED, GREEN)]
    path = save(tmp_path, frames[0], "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert colour(open_rgb(path)) == RED


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png: no such file$"):
        open_rgb(tmp_path / "nowhere.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png"):
        open_rgb(tmp_path / "folder.png")


def png_of_16_bits(kind: int, samples: list[int]) -> bytes:
    """One row of pixels as a PNG file of 16 bits a sample, of a colour type."""
    width = len(samples) // {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, 16, kind, 0, 0, 0))
    pixels = zlib.compress(b"\x00" + struct.pack(f">{len(samples)}H", *samples))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "samples", "expected"),
    [
        (2, [0x1234, 0xFFFF, 0x00FF, 0x8000, 0, 0x0100], [(0x12, 0xFF, 0), (0x80, 0, 1)]),
        (6, [0xFFFF, 0, 0, 0, 0xFFFF, 0, 0, 0xFFFF], [WHITE, RED]),
        (4, [0, 0, 0x8000, 0xFFFF], [WHITE, (128, 128, 128)]),
    ],
)
def test_sixteen_bit_colour_keeps_its_upper_eight_bits(
    tmp_path: Path, kind: int, samples: list[int], expected: list[tuple[int, int, int]]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of_16_bits(kind, samples))
    read = open_rgb(path)
    assert [colour(read, 0), colour(read, 1)] == expected


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("samples", [1, 3])
def test_sixteen_bits_of_a_tiff_in_either_order(tmp_path: Path, order: str, samples: int) -> None:
    values = [0x1234, 0xFFFF, 0x00FF, 0x8000, 0, 0x0100][: 2 * samples]
    entries = [
        (256, 4, 2),
        (257, 4, 1),
        (258, 3, 16 if samples == 1 else 0),
        (259, 3, 1),
        (262, 3, 1 if samples == 1 else 2),
        (273, 4, 0),
        (277, 3, samples),
        (278, 4, 1),
        (279, 4, 4 * samples),
    ]
    behind = 8 + 2 + 12 * len(entries) + 4
    depths = struct.pack(order + "3H", 16, 16, 16) if samples == 3 else b""
    directory = b""
    for tag, kind, value in entries:
        count = 1
        if tag == 258 and depths:
            count, kind, value = 3, 3, behind
        if tag == 273:
            value = behind + len(depths)
        wide = kind == 4 or count > 1
        directory += struct.pack(
            order + "HHI" + ("I" if wide else "HH"), tag, kind, count, value, *([] if wide else [0])
        )
    head = (
        (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(entries))
    )
    path = tmp_path / "a.tif"
    pixels = struct.pack(f"{order}{len(values)}H", *values)
    path.write_bytes(head + directory + bytes(4) + depths + pixels)
    read = np.asarray(open_rgb(path)).reshape(2, 3)
    expected = [[value >> 8 for value in values[at : at + samples]] * (3 // samples) for at in (0, samples)]
    assert read.tolist() == expected


@pytest.mark.parametrize("suffix", sorted(SAVED_AS))
def test_an_image_is_known_by_its_content_and_not_by_its_name(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, noise(64, 64), f"a.{suffix}")
    plain = np.asarray(open_rgb(path))
    assert np.array_equal(np.asarray(open_rgb(path.rename(tmp_path / "other.jpg"))), plain)


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, noise())
    (tmp_path / "link.png").symlink_to(path.name)
    assert [each.name for each in sorted(images_among(list_folder(tmp_path)))] == ["image.png", "link.png"]
    assert open_rgb(tmp_path / "link.png").size == (24, 16)
