"""Pictures of every kind that a person may have."""

import gc
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from m2sd_cli.data.images import SUFFIXES, list_images, open_rgb
from m2sd_cli.errors import DataError

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


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"secret\.png: no permission to read it"):
        open_rgb(tmp_path / "secret.png")


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


@settings(deadline=None, max_examples=200)
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
