"""Pictures of every kind that a person may have."""

import gc
import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from random import Random
from threading import Barrier, Event, Lock
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin

from m2sd_cli.data import images
from m2sd_cli.data.images import SUFFIXES, find_pictures, list_images, open_rgb
from m2sd_cli.data.threads import Room
from m2sd_cli.errors import DataError, PictureError

MORE = int(os.environ.get("M2SD_ROUNDS", "1"))
ROUNDS = MORE * 1000  # damaged files
RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 0)
ORIENTATION = 0x0112
SAVED_AS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}


def save(folder: Path, image: Image.Image, name: str = "picture.png", **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def noise(width: int = 24, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def colour(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    assert image.mode == "RGB"
    red, green, blue = np.asarray(image)[y, x].tolist()
    return red, green, blue


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp"])
def test_an_rgb_picture_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    image = noise()
    read = open_rgb(save(tmp_path, image, name, **({"lossless": True} if name == "a.webp" else {})))
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), np.asarray(image))


def test_a_jpeg_is_read_nearly_as_it_is(tmp_path: Path) -> None:
    image = noise().resize((240, 160))
    read = open_rgb(save(tmp_path, image, "a.jpg", quality=100, subsampling=0))
    assert np.abs(np.asarray(read).astype(int) - np.asarray(image).astype(int)).max() < 8


def test_the_picture_outlives_its_file(tmp_path: Path) -> None:
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
def test_a_picture_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
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


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_picture_is_damaged(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path, noise(64, 64), f"a.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=rf"a\.{suffix}: (damaged picture|not a picture)"):
        open_rgb(path)


@pytest.mark.parametrize("content", [b"", b"Dear Sir,\nplease find no picture attached.\n", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"letter\.jpg: not a picture that can be read \(jpg, png, webp or bmp\)"):
        open_rgb(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png: no such file$"):
        open_rgb(tmp_path / "nowhere.png")


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png"):
        open_rgb(tmp_path / "folder.png")


@pytest.mark.parametrize("width", [11, 20, 21, 300])
def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    path = save(tmp_path, Image.new("RGB", (width * 100, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(DataError, match=r"picture\.png: more than 1 million pixels"):
        open_rgb(path)


def test_a_picture_of_just_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 16)
    assert open_rgb(save(tmp_path, noise())).size == (24, 16)


def test_reading_in_many_threads_leaves_the_warning_filters_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filters belong to the whole process; every too large picture is still refused."""
    good, large = save(tmp_path, noise()), save(tmp_path, noise(25, 16), "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 16)

    def refused(path: Path) -> bool:
        try:
            open_rgb(path)
        except DataError:
            return True
        return False

    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(refused, [good, large] * 300))
    assert warnings.filters == before
    assert results == [False, True] * 300


def test_two_pictures_are_decoded_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other in the midst of its decoding."""
    path = save(tmp_path, noise(), "a.bmp")
    prepare, both = ImageFile.ImageFile.load_prepare, Barrier(2)

    def meet(image: ImageFile.ImageFile) -> None:
        both.wait(timeout=30)
        prepare(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", meet)
    with ThreadPoolExecutor(2) as pool:
        assert [image.size for image in pool.map(open_rgb, [path, path])] == [(24, 16)] * 2


def test_a_picture_that_was_read_does_not_wait_for_the_garbage_collector(tmp_path: Path) -> None:
    path = save(tmp_path, noise())
    gc.collect()
    gc.disable()
    try:
        open_rgb(path)
        assert not [each for each in gc.get_objects() if issubclass(type(each), ImageFile.ImageFile)]
    finally:
        gc.enable()


HEADER = b"MM\x00*\x00\x00\x00\x08"
TURNED = struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_with(image: Image.Image, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG file with chunks before and behind its pixels."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    content = buffer.getvalue()
    return content[:33] + before + content[33:-12] + behind + content[-12:]


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"x",
        b"II*\x00",
        b"II*\x00\x08\x00\x00\x00\xff\xff",
        b"II*\x00\xff\xff\xff\xff",
        b"Iy*\x00\x08\x00\x00\x00",
        HEADER + struct.pack(">HHHI4s", 1, ORIENTATION, 2, 2, b"6"),
        HEADER + struct.pack(">HHHIII", 1, ORIENTATION, 5, 1, 2**31, 0),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_is_passed_over(tmp_path: Path, suffix: str, exif: bytes) -> None:
    assert open_rgb(save(tmp_path, noise(), f"a.{suffix}", exif=b"Exif\x00\x00" + exif)).size == (24, 16)
    late = tmp_path / "late.png"
    late.write_bytes(png_with(noise(), behind=png_chunk(b"eXIf", exif)))
    assert open_rgb(late).size == (24, 16)


@pytest.mark.parametrize(
    "damage",
    [
        struct.pack(">HHII", 0x0110, 2, 2**31, 8),
        struct.pack(">HHII", 0x8769, 4, 1, 2**31),
        struct.pack(">HHII", 0x8769, 2, 1, 2**31),
        struct.pack(">HHIHH", 0x0128, 3, 2, 1, 1),
        b"\x01",
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_is_turned_though_the_rest_of_its_exif_is_damaged(tmp_path: Path, suffix: str, damage: bytes) -> None:
    exif = b"Exif\x00\x00" + HEADER + struct.pack(">H", 2) + TURNED + damage
    assert open_rgb(save(tmp_path, noise(), f"a.{suffix}", exif=exif)).size == (16, 24)


@pytest.mark.parametrize("text", [b"\nexif\n  4\nzzzz\n", b"\n", b""])
def test_exif_that_is_no_hexadecimal_text_is_passed_over(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_with(noise(), before=png_chunk(b"tEXt", b"Raw profile type exif\x00" + text)))
    assert open_rgb(path).size == (24, 16)


@pytest.mark.parametrize("frames", [0, 2])
def test_an_animation_declared_again_behind_the_pixels_is_no_concern(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(
        png_with(
            noise(), png_chunk(b"acTL", struct.pack(">II", 2, 0)), png_chunk(b"acTL", struct.pack(">II", frames, 0))
        )
    )
    assert np.array_equal(np.asarray(open_rgb(path)), np.asarray(noise()))


def tiff_with(folder: Path, tag: int, entry: bytes) -> Path:
    """A big TIFF file, one entry of whose directory is replaced by another."""
    path = save(folder, noise(), "a.tif", tiffinfo={0x013B: "an artist"}, big_tiff=True)
    content = path.read_bytes()
    at = content.index(struct.pack("<H", tag), content.index(struct.pack("<HH", 256, 4)))
    path.write_bytes(content[:at] + entry + content[at + len(entry) :])
    return path


@pytest.mark.parametrize("place", [2**31, 2**40])
def test_a_tiff_is_read_though_its_exif_is_out_of_reach(tmp_path: Path, place: int) -> None:
    """Pillow looks there after it has decoded the pixels."""
    path = tiff_with(tmp_path, 0x013B, struct.pack("<HHQQ", 0x8769, 16, 1, place))
    assert np.array_equal(np.asarray(open_rgb(path)), np.asarray(noise()))


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        (0x013B, struct.pack("<HHQQ", 0x8769, 16, 1, 2**64 - 1)),
        (0x0111, struct.pack("<HHQ8s", 0x0111, 2, 3, b"ab")),
    ],
)
def test_a_tiff_that_points_nowhere_is_refused(tmp_path: Path, tag: int, entry: bytes) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*a\.tif: damaged picture \([^\n]*\)$"):
        open_rgb(tiff_with(tmp_path, tag, entry))


@settings(deadline=None, max_examples=MORE * 200)
@given(
    st.sampled_from(sorted(SAVED_AS)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0.02, 1),
)
def test_damage_anywhere_gives_a_picture_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: list[tuple[float, int]], kept: float
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = BytesIO()
    noise().save(buffer, SAVED_AS[suffix], exif=exif)
    content = bytearray(buffer.getvalue())
    for place, value in damage:
        content[int(place * len(content))] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(content[: max(1, round(kept * len(content)))])
    try:
        mode = open_rgb(path).mode
    except DataError:
        return
    assert mode == "RGB"


def whole_files() -> list[bytes]:
    """Pictures of every format, mode and compression that Pillow writes and that may be read."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image, grey = noise(), noise().convert("L")
    some = {"exif": exif, "icc_profile": b"profile" * 50}
    wanted: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((image, name, some if name in ("JPEG", "PNG", "WEBP", "TIFF") else {}) for name in SAVED_AS.values()),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {}),
        (image, "MPO", {"save_all": True, "append_images": [image]}),
        (image.convert("P"), "PNG", {"transparency": bytes(range(200))}),
        (image.convert("RGBA"), "PNG", {"save_all": True, "append_images": [image.convert("RGBA").rotate(9)]}),
        (grey.convert("LA"), "PNG", {}),
        (Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600), "PNG", {}),
        (image, "WEBP", {"save_all": True, "append_images": [image.rotate(9)]}),
        (image.convert("P"), "BMP", {}),
        (image.convert("1"), "BMP", {}),
        (image.convert("P"), "GIF", {"save_all": True, "append_images": [image.rotate(9).convert("P")]}),
        (image, "TIFF", {"big_tiff": True}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image.convert("CMYK"), "TIFF", {}),
        (image.convert("1"), "TIFF", {}),
    ]
    files = []
    for each, format, options in wanted:
        buffer = BytesIO()
        each.save(buffer, format, **options)
        files.append(buffer.getvalue())
    return files


def damaged(whole: bytes, random: Random) -> bytes:
    """A file with bytes changed, extreme numbers written, and pieces removed, added, repeated or cut off."""
    content = bytearray(whole)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at = random.randrange(min(len(content), random.choice((200, len(content)))))
        match random.randrange(5):
            case 0:
                content[at] = random.randrange(256)
            case 1:
                content[at : at + 4] = random.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
            case 2:
                del content[at : at + random.randrange(1, 9)]
            case 3:
                content[at:at] = random.randbytes(random.randrange(1, 9))
            case 4:
                source = random.randrange(len(content))
                content[at : at + 8] = content[source : source + 8]
        content = content or bytearray(1)
    return bytes(content[: random.randrange(len(content))] if random.random() < 0.2 else content)


def test_any_damage_gives_a_picture_or_one_line_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random, files, path = Random(0), whole_files(), tmp_path / "damaged.jpg"
    capfd.readouterr()  # saving may have printed
    refused = []
    for _ in range(ROUNDS):
        path.write_bytes(damaged(random.choice(files), random))
        try:
            assert open_rgb(path).mode == "RGB"
        except PictureError as error:
            refused.append(error)
    assert 0 < len(refused) < ROUNDS
    assert all(len(each.lines) == 1 and "\n" not in each.reason for each in refused)
    assert capfd.readouterr() == ("", "")


def test_a_png_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, noise())
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 0, 0)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"picture\.png"):
        open_rgb(path)


def test_the_pictures_of_a_folder_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.jpeg", "d.webp", "e.bmp", ".hidden.png", "notes.txt", "f.gif", "png"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.jpeg", "d.webp", "e.bmp"]
    assert {path.suffix.lower() for path in list_images(tmp_path)} == SUFFIXES


def test_large_pictures_are_not_decoded_all_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path, noise(), f"{number}.png") for number in range(6)]
    monkeypatch.setattr(images, "_ROOM", Room(2 * 24 * 16))
    prepare = ImageFile.ImageFile.load_prepare
    under_way, most, lock = 0, 0, Lock()

    def count(image: ImageFile.ImageFile) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        Event().wait(0.02)
        prepare(image)
        with lock:
            under_way -= 1

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", count)
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(open_rgb, paths))) == 6
    assert most == 2


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: ImageFile.ImageFile) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", refuse)


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """A black-and-white PNG file of any size, made row by row."""
    squeeze, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    pixels = b"".join([*(squeeze.compress(row) for _ in range(height)), squeeze.flush()])
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")])


def test_a_huge_picture_in_a_small_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(20_000, 20_000))
    assert path.stat().st_size < 100_000
    forbid_decoding(monkeypatch)
    with pytest.raises(PictureError, match=r"bomb\.png: more than 89 million pixels; scale it down first$"):
        open_rgb(path)


@pytest.mark.parametrize(("width", "height"), [(65535, 65535), (16383, 16383), (13_000, 7_000)])
@pytest.mark.parametrize("suffix", sorted(SAVED_AS))
def test_a_bomb_of_any_format_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, width: int, height: int
) -> None:
    """Small pictures whose headers claim that they are large."""
    path = save(tmp_path, noise(), f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    content = bytearray(path.read_bytes())
    if suffix == "jpg":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", height, width)
    elif suffix == "png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif suffix == "webp":
        width, height = min(width, 16384), min(height, 16384)
        content[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    elif suffix == "bmp":
        content[18:26] = struct.pack("<ii", width, height)
    elif suffix == "gif":
        content[6:10] = struct.pack("<HH", width, height)
    else:
        for tag, value in ((256, width), (257, height)):
            at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
            content[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(content)
    forbid_decoding(monkeypatch)
    with pytest.raises(PictureError, match=rf"a\.{suffix}: more than 89 million pixels"):
        open_rgb(path)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("late", [False, True])
def test_a_bomb_of_text_in_a_png_is_refused(tmp_path: Path, name: bytes, late: bool) -> None:
    squeezed = zlib.compress(bytes(20_000_000))
    before = {b"zTXt": b"a\x00\x00", b"iTXt": b"a\x00\x01\x00\x00\x00", b"iCCP": b"a\x00\x00"}[name]
    chunk = png_chunk(name, before + squeezed)
    path = tmp_path / "a.png"
    path.write_bytes(png_with(noise(), behind=chunk) if late else png_with(noise(), before=chunk))
    with pytest.raises(PictureError, match=r"a\.png: damaged picture \(Decompressed data too large"):
        open_rgb(path)


def test_many_texts_in_a_png_are_refused(tmp_path: Path) -> None:
    chunk = png_chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(1_000_000)))
    path = tmp_path / "a.png"
    path.write_bytes(png_with(noise(), before=80 * chunk))
    with pytest.raises(PictureError, match=r"a\.png: damaged picture \(Too much memory used in text"):
        open_rgb(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_a_compressed_tiff_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    """Its library unpacks a tile as a whole, however large, and prints what it does not like."""
    path = save(tmp_path, noise(), "a.tif", compression=compression)
    forbid_decoding(monkeypatch)
    with pytest.raises(PictureError, match=r"a\.tif: a compressed TIFF; save it as jpg or png$"):
        open_rgb(path)


@pytest.mark.parametrize("profile", [b"", b"no profile", bytes(200)])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_colour_profile_in_whatever_state_changes_nothing(
    tmp_path: Path, suffix: str, profile: bytes, mode: str
) -> None:
    if mode == "CMYK" and suffix in ("png", "webp"):
        return  # they have none
    image = noise().convert(mode)
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    plain = open_rgb(save(tmp_path, image, f"plain.{suffix}", **options))
    tagged = open_rgb(save(tmp_path, image, f"tagged.{suffix}", icc_profile=profile, **options))
    assert np.array_equal(np.asarray(tagged), np.asarray(plain))


@pytest.mark.parametrize("content", [b"ICC_PROFILE\x00\x01\x05abc", b"ICC_PROFILE\x00\x02\x01abc"])
def test_parts_of_a_colour_profile_are_passed_over(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path, noise(), "a.jpg")
    plain = np.asarray(open_rgb(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + whole[2:])
    assert np.array_equal(np.asarray(open_rgb(path)), plain)


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
    wanted = [[value >> 8 for value in values[at : at + samples]] * (3 // samples) for at in (0, samples)]
    assert read.tolist() == wanted


@pytest.mark.parametrize("suffix", sorted(SAVED_AS))
def test_a_picture_is_known_by_its_content_and_not_by_its_name(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, noise(64, 64), f"a.{suffix}")
    plain = np.asarray(open_rgb(path))
    assert np.array_equal(np.asarray(open_rgb(path.rename(tmp_path / "other.jpg"))), plain)


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "ICO", "PPM", "TGA", "PCX", "PDF", "EPS"])
def test_another_format_behind_a_pictures_name_is_refused(tmp_path: Path, format: str) -> None:
    noise(64, 64).save(tmp_path / "a.jpg", format=format)
    with pytest.raises(PictureError, match=r"a\.jpg: not a picture that can be read"):
        open_rgb(tmp_path / "a.jpg")


def test_nothing_is_printed_of_a_picture(tmp_path: Path) -> None:
    """Neither what Pillow warns of nor what it logs, in a process without handlers of its own."""
    entries = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, 8), (277, 99), (278, 16), (279, 256)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "logged.tif").write_bytes(b"II*\x00\x08\x00\x00\x00\x09\x00" + directory + bytes(400))
    (tmp_path / "warned.png").write_bytes(png_with(noise(), png_chunk(b"acTL", bytes(8))))
    program = (
        "import sys\nfrom pathlib import Path\nfrom m2sd_cli.data.images import open_rgb\n"
        "from m2sd_cli.errors import PictureError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        print(open_rgb(Path(name)).size)\n    except PictureError:\n        print('refused')\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "logged.tif"), str(tmp_path / "warned.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n(24, 16)\n", "")


def make(path: Path, kind: str) -> Path:
    """Something with a picture's name that is no file."""
    match kind:
        case "dangling link":
            path.symlink_to("nowhere")
        case "link to itself":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "link to a pipe":
            os.mkfifo(path.with_suffix(""))
            path.symlink_to(path.with_suffix(""))
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.relpath(path))
        case "device":
            path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["dangling link", "link to itself", "pipe", "link to a pipe", "socket", "device"])
def test_what_is_no_file_is_named_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = make(tmp_path / "x.png", kind)
    assert list_images(tmp_path) == [path]
    assert find_pictures([tmp_path]) == [path]
    assert find_pictures([path]) == [path]
    with pytest.raises(PictureError, match=r"x\.png: not a file, or a link that leads nowhere$"):
        open_rgb(path)


def test_a_link_to_a_picture_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, noise())
    (tmp_path / "link.png").symlink_to(path.name)
    assert [each.name for each in list_images(tmp_path)] == ["link.png", "picture.png"]
    assert open_rgb(tmp_path / "link.png").size == (24, 16)


def test_folders_that_link_to_each_other_are_searched_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "top" / name).mkdir(parents=True)
        save(tmp_path / "top" / name, noise())
    for stored, target in (("a/up", ".."), ("a/self", "."), ("a/b", "../b"), ("b/a", "../a"), ("b/x.png", "../a")):
        (tmp_path / "top" / stored).symlink_to(target)
    (tmp_path / "link").symlink_to("top")
    for place in ("top", "link"):
        wanted = [tmp_path / place / name / "picture.png" for name in ("a", "b")]
        assert find_pictures([tmp_path / place]) == wanted


def test_a_tower_of_folders_is_searched_to_its_top(tmp_path: Path) -> None:
    """Higher than calls may be nested."""
    place = tmp_path
    for _ in range(1100):
        place = place / "d"
        place.mkdir()
    path = save(place, noise())
    try:
        assert find_pictures([tmp_path]) == [path]
    finally:  # here, as what tidies up behind the tests nests calls
        path.unlink()
        while place != tmp_path:
            place.rmdir()
            place = place.parent
