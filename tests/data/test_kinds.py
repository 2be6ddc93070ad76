"""Every kind of images of the table is read, upright, whatever the case of its suffix."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m2sd_cli.data import kinds
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.kinds import KINDS, Kind, is_any_image, is_at_hand, is_image, way_out
from m2sd_cli.errors import ImageError
from m2sd_cli.extras import install_extra
from tests.data.helpers import ORIENTATION

SUFFIXES = [(kind, suffix) for kind in KINDS for suffix in kind.suffixes]


def half_red() -> Image.Image:
    """The left half is red, the right one blue."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32, 0] = pixels[:, 32:, 2] = 200
    return Image.fromarray(pixels)


def write(path: Path, kind: Kind, orientation: int) -> Path:
    """Save an image of a kind; skip the test where that cannot be done."""
    if not is_at_hand(kind.module):
        pytest.skip(f"{kind.module} is not installed")
    options: dict[str, Any] = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    if kind.module == kinds.HEIC_MODULE:
        import pillow_heif

        pillow_heif.from_pillow(half_red()).save(path, **{name: each.tobytes() for name, each in options.items()})
    else:
        half_red().save(path, kind.format, **options)
    return path


@pytest.mark.parametrize(("kind", "suffix"), SUFFIXES, ids=[suffix for _, suffix in SUFFIXES])
def test_an_image_of_any_kind_is_read(tmp_path: Path, kind: Kind, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix.upper()}", kind, 1)
    assert is_image(path)
    read = np.asarray(open_rgb(path)).astype(int)
    assert np.abs(read - np.asarray(half_red()).astype(int)).mean() < 8


# A GIF and a BMP have no EXIF.
@pytest.mark.parametrize(
    "kind", [each for each in KINDS if each.format not in ("GIF", "BMP")], ids=lambda kind: kind.format
)
@pytest.mark.parametrize("suffix", [None, ".jpg"])
def test_an_image_of_any_kind_is_turned_upright_whatever_it_is_called(
    tmp_path: Path, kind: Kind, suffix: str | None
) -> None:
    upright = np.asarray(open_rgb(write(tmp_path / f"a{suffix or kind.suffixes[0]}", kind, 6))).astype(int)
    assert upright.shape == (64, 32, 3)
    assert np.abs(upright - np.rot90(np.asarray(half_red()).astype(int), -1)).mean() < 8


def test_no_suffix_is_of_two_kinds() -> None:
    suffixes = [suffix for _, suffix in SUFFIXES]
    assert len(suffixes) == len({*suffixes} | kinds.OTHERS) - len(kinds.OTHERS)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)


def test_without_the_extra_a_heic_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.data.image_guards.is_at_hand", lambda module: False)
    path = tmp_path / "IMG_1.jpg"  # as some programs call them
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    monkeypatch.setattr("m2sd_cli.data.kinds.install_extra", "pip install '.[{}]'".format)
    with pytest.raises(ImageError, match=r"IMG_1\.jpg: a HEIC image: pip install '\.\[heic\]', or convert it$"):
        open_rgb(path)


def test_a_damaged_heic_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    if find_spec(kinds.HEIC_MODULE) is None:
        pytest.skip("pillow_heif is not installed")
    whole = write(path, KINDS[-1], 6).read_bytes()
    for size in (20, 60, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(ImageError, match=r"a\.heic: (damaged|not a) image"):
            open_rgb(path)


def test_the_module_for_heic_is_imported_for_such_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kinds.HEIC_MODULE, None)
    half_red().save(tmp_path / "a.png")
    assert is_image(tmp_path / "a.png")
    assert open_rgb(tmp_path / "a.png").size == (64, 32)


@pytest.mark.parametrize(
    ("suffix", "says"),
    [
        (".heic", f"{install_extra('heic')}, or convert them"),
        (".avif", "install a Pillow that reads AVIF, or convert them"),
        (".cr2", "convert them to jpg or png"),
        (".txt", "no image by the name"),
    ],
)
def test_the_way_out_is_named(suffix: str, says: str) -> None:
    assert way_out(suffix, "them") == says
    assert is_any_image(Path(f"a{suffix}".upper())) is (suffix != ".txt")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_more_pixels_than_others_may_have_is_read_at_half_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progressive: bool
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 32 // 2)
    half_red().save(tmp_path / "a.jpg", exif=exif, progressive=progressive)
    read = open_rgb(tmp_path / "a.jpg")
    assert read.size == (16, 32)
    small = np.rot90(np.asarray(half_red().resize((32, 16))).astype(int), -1)
    assert np.abs(np.asarray(read).astype(int) - small).mean() < 8
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 32 // 3)
    with pytest.raises(ImageError, match="more than 0 million pixels"):
        open_rgb(tmp_path / "a.jpg")
