"""Damaged, hostile and huge images: each is read, or refused in one line."""

import gc
import os
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

from m2sd_cli.data import image_guards
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.threads import MemoryBudget
from m2sd_cli.errors import DataError, ImageError
from tests.data.helpers import ORIENTATION, SAVED_AS, noise, png_chunk, save
from tests.helpers import PATIENCE

MORE = int(os.environ.get("M2SD_ROUNDS", "1"))
ROUNDS = MORE * 1000  # damaged files


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_image_is_damaged(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path, noise(64, 64), f"a.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=rf"a\.{suffix}: (damaged image|not an image)"):
        open_rgb(path)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "copied.jpg").touch()
    with pytest.raises(ImageError, match=r"copied\.jpg: an empty file, of 0 bytes; copy it again"):
        open_rgb(tmp_path / "copied.jpg")


@pytest.mark.parametrize("content", [b"Dear Sir,\nplease find no image attached.\n", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"letter\.jpg: not an image that can be read \(jpg, png, webp, .*\)"):
        open_rgb(path)


@pytest.mark.parametrize("width", [11, 20, 21, 300])
def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    path = save(tmp_path, Image.new("RGB", (width * 100, 1000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(DataError, match=r"image\.png: more than 1 million pixels"):
        open_rgb(path)


def test_an_image_of_just_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 16)
    assert open_rgb(save(tmp_path, noise())).size == (24, 16)


def test_reading_in_many_threads_leaves_the_warning_filters_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filters belong to the whole process; every too large image is still refused."""
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


def test_two_images_are_decoded_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other in the midst of its decoding."""
    path = save(tmp_path, noise(), "a.bmp")
    prepare, both = ImageFile.ImageFile.load_prepare, Barrier(2)

    def meet(image: ImageFile.ImageFile) -> None:
        both.wait(timeout=PATIENCE)
        prepare(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", meet)
    with ThreadPoolExecutor(2) as pool:
        assert [image.size for image in pool.map(open_rgb, [path, path])] == [(24, 16)] * 2


def test_an_image_that_was_read_does_not_wait_for_the_garbage_collector(tmp_path: Path) -> None:
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
def test_an_image_is_turned_though_the_rest_of_its_exif_is_damaged(tmp_path: Path, suffix: str, damage: bytes) -> None:
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


@pytest.mark.parametrize("position", [2**31, 2**40])
def test_a_tiff_is_read_though_its_exif_is_out_of_reach(tmp_path: Path, position: int) -> None:
    """Pillow looks there after it has decoded the pixels."""
    path = tiff_with(tmp_path, 0x013B, struct.pack("<HHQQ", 0x8769, 16, 1, position))
    assert np.array_equal(np.asarray(open_rgb(path)), np.asarray(noise()))


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        (0x013B, struct.pack("<HHQQ", 0x8769, 16, 1, 2**64 - 1)),
        (0x0111, struct.pack("<HHQ8s", 0x0111, 2, 3, b"ab")),
    ],
)
def test_a_tiff_that_points_nowhere_is_refused(tmp_path: Path, tag: int, entry: bytes) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*a\.tif: damaged image \([^\n]*\)$"):
        open_rgb(tiff_with(tmp_path, tag, entry))


@settings(max_examples=MORE * 200)
@given(
    st.sampled_from(sorted(SAVED_AS)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0.02, 1),
)
def test_damage_anywhere_gives_an_image_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, damage: list[tuple[float, int]], share: float
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = BytesIO()
    noise().save(buffer, SAVED_AS[suffix], exif=exif)
    content = bytearray(buffer.getvalue())
    for position, value in damage:
        content[int(position * len(content))] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(content[: max(1, round(share * len(content)))])
    try:
        mode = open_rgb(path).mode
    except DataError:
        return
    assert mode == "RGB"


def whole_files() -> list[bytes]:
    """Images of every format, mode and compression that Pillow writes and that may be read."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image, grey = noise(), noise().convert("L")
    some = {"exif": exif, "icc_profile": b"profile" * 50}
    variants: list[tuple[Image.Image, str, dict[str, Any]]] = [
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
    for each, format, options in variants:
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


def test_any_damage_gives_an_image_or_one_line_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random, files, path = Random(0), whole_files(), tmp_path / "damaged.jpg"
    capfd.readouterr()  # saving may have printed
    refused = []
    for _ in range(ROUNDS):
        path.write_bytes(damaged(random.choice(files), random))
        try:
            assert open_rgb(path).mode == "RGB"
        except ImageError as error:
            refused.append(error)
    assert 0 < len(refused) < ROUNDS
    assert all(len(each.lines) == 1 and "\n" not in each.reason for each in refused)
    assert capfd.readouterr() == ("", "")


def test_a_png_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, noise())
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 0, 0)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png"):
        open_rgb(path)


def test_large_images_are_not_decoded_all_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path, noise(), f"{number}.png") for number in range(6)]
    monkeypatch.setattr(image_guards, "DECODING", MemoryBudget(2 * 24 * 16))
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


def test_a_huge_image_in_a_small_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(20_000, 20_000))
    assert path.stat().st_size < 100_000
    forbid_decoding(monkeypatch)
    with pytest.raises(ImageError, match=r"bomb\.png: more than 89 million pixels; scale it down first$"):
        open_rgb(path)


@pytest.mark.parametrize(("width", "height"), [(65535, 65535), (16383, 16383), (13_000, 7_000)])
@pytest.mark.parametrize("suffix", sorted(SAVED_AS))
def test_a_bomb_of_any_format_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, width: int, height: int
) -> None:
    """Small images whose headers claim that they are large."""
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
    if suffix == "jpg" and width * height < 2 * 89_478_485:
        with pytest.raises(AssertionError, match="it was decoded"):  # at half its size
            open_rgb(path)
        return
    with pytest.raises(
        ImageError, match=rf"a\.{suffix}: more than {'223' if suffix == 'jpg' else '89'} million pixels"
    ):
        open_rgb(path)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("late", [False, True])
def test_a_bomb_of_text_in_a_png_is_refused(tmp_path: Path, name: bytes, late: bool) -> None:
    squeezed = zlib.compress(bytes(20_000_000))
    before = {b"zTXt": b"a\x00\x00", b"iTXt": b"a\x00\x01\x00\x00\x00", b"iCCP": b"a\x00\x00"}[name]
    chunk = png_chunk(name, before + squeezed)
    path = tmp_path / "a.png"
    path.write_bytes(png_with(noise(), behind=chunk) if late else png_with(noise(), before=chunk))
    with pytest.raises(ImageError, match=r"a\.png: more text or colour profile in it than"):
        open_rgb(path)


def test_many_texts_in_a_png_are_refused(tmp_path: Path) -> None:
    chunk = png_chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(1_000_000)))
    path = tmp_path / "a.png"
    path.write_bytes(png_with(noise(), before=80 * chunk))
    with pytest.raises(ImageError, match=r"a\.png: more text or colour profile in it than"):
        open_rgb(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_compressed_tiff_is_read(tmp_path: Path, compression: str, mode: str) -> None:
    plain, small = (
        save(tmp_path, noise().convert(mode), f"{name}.tif", **options)
        for name, options in (("plain", {}), ("small", {"compression": compression}))
    )
    assert np.array_equal(np.asarray(open_rgb(small)), np.asarray(open_rgb(plain)))


def test_a_compressed_tiff_of_huge_tiles_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library unpacks a tile as a whole, however large."""
    width, length, bits, compression, photometric, samples = 256, 257, 258, 259, 262, 277
    tags = {width: 24, length: 16, bits: 8, compression: 5, photometric: 1, samples: 1}
    tags |= {322: 60_000, 323: 60_000, 324: 8, 325: 8}  # width and length of a tile, place and size of the first
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path = tmp_path / "a.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + bytes(4))
    forbid_decoding(monkeypatch)
    with pytest.raises(ImageError, match=r"a\.tif: a TIFF of tiles larger than images may be; save it as jpg or png$"):
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


@pytest.mark.parametrize("format", ["JPEG2000", "ICO", "PPM", "TGA", "PCX", "PDF", "EPS"])
def test_another_format_behind_an_images_name_is_refused(tmp_path: Path, format: str) -> None:
    noise(64, 64).save(tmp_path / "a.jpg", format=format)
    with pytest.raises(ImageError, match=r"a\.jpg: not an image that can be read"):
        open_rgb(tmp_path / "a.jpg")


def test_nothing_is_printed_of_an_image(tmp_path: Path) -> None:
    """Neither what Pillow warns of nor what it logs, in a process without handlers of its own."""
    entries = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, 8), (277, 99), (278, 16), (279, 256)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "logged.tif").write_bytes(b"II*\x00\x08\x00\x00\x00\x09\x00" + directory + bytes(400))
    (tmp_path / "warned.png").write_bytes(png_with(noise(), png_chunk(b"acTL", bytes(8))))
    program = (
        "import sys\nfrom pathlib import Path\nfrom m2sd_cli.data.images import open_rgb\n"
        "from m2sd_cli.errors import ImageError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        print(open_rgb(Path(name)).size)\n    except ImageError:\n        print('refused')\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "logged.tif"), str(tmp_path / "warned.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n(24, 16)\n", "")
