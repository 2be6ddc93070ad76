"""Remarks on folders that can be used and are odd."""

from pathlib import Path

import pytest
from PIL import Image

from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.remarks import remarks


def fill(folder: Path, name: str, count: int, shade: int) -> None:
    (folder / name).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (shade, number % 256, number // 256)).save(folder / name / f"{number:03d}.png")


def test_an_ordinary_folder_has_none(tmp_path: Path) -> None:
    fill(tmp_path, "a", 10, 1)
    fill(tmp_path, "b", 199, 2)
    assert remarks(open_folder(tmp_path, 8)) == []


@pytest.mark.parametrize(("largest", "uneven"), [(19, False), (20, True)])
def test_sizes(largest: int, uneven: bool, tmp_path: Path) -> None:
    fill(tmp_path, "a", 1, 1)
    fill(tmp_path, "b", largest, 2)
    expected = [
        "few photos: a (1); a class is known better from 10 or more",
        f"uneven classes: b has {largest} photos, a has 1",
        "no photo to test with: a",
    ]
    assert remarks(open_folder(tmp_path, 8)) == [line for line in expected if uneven or "uneven" not in line]


def test_many_are_counted(tmp_path: Path) -> None:
    for shade, name in enumerate("abcde"):
        fill(tmp_path, name, 2, shade)
    assert remarks(open_folder(tmp_path, 8)) == [
        "few photos: a (2), b (2), c (2) and 2 more; a class is known better from 10 or more"
    ]


def test_copies(tmp_path: Path) -> None:
    fill(tmp_path / "train", "a", 10, 1)
    fill(tmp_path / "train", "b", 10, 2)
    fill(tmp_path / "test", "a", 1, 1)  # the first of its training images
    fill(tmp_path / "test", "b", 1, 3)
    (tmp_path / "train" / "b" / "copy.png").write_bytes((tmp_path / "train" / "a" / "004.png").read_bytes())
    assert remarks(open_folder(tmp_path, 8)) == [
        "the same photo in two classes: train/a/004.png and train/b/copy.png",
        "the same photo twice: train/a/000.png and test/a/000.png",
    ]
