"""A person's own folders: the split, the layouts, and what is refused."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from m2sd_cli.data.check import check_data
from m2sd_cli.data.folders import open_folder, read_classes, read_shots, split_class
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import DataError, UsageError


def fill(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.new("RGB", (10, 12), (number, 0, 0)).save(folder / f"{number:03d}.png")


def names(source: object) -> list[str]:
    assert isinstance(source, FileImages)
    return [f"{path.parent.name}/{path.name}" for path in source.paths]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, count in (("cat", 10), ("dog", 7), ("emu", 1), ("fox", 2)):
        fill(tmp_path / "photos" / name, count)
    return tmp_path / "photos"


def test_four_fifths_are_trained_on_and_one_fifth_is_tested_on(photos: Path) -> None:
    data = open_folder(photos, 16)
    assert data.classes == ["cat", "dog", "emu", "fox"]
    assert (data.base, data.sessions, data.name) == (4, 0, "photos")
    assert data.train.labels.bincount().tolist() == [8, 6, 1, 1]
    assert data.test.labels.bincount(minlength=4).tolist() == [2, 1, 0, 1]
    assert sorted(names(data.train) + names(data.test)) == [
        f"{path.parent.name}/{path.name}" for path in sorted(photos.rglob("*.png"))
    ]


def test_the_split_depends_on_nothing_but_the_names_of_the_files(photos: Path, tmp_path: Path) -> None:
    data = open_folder(photos, 16)
    moved = tmp_path / "elsewhere" / "animals"
    moved.mkdir(parents=True)
    for folder in sorted(photos.iterdir(), reverse=True):
        (moved / folder.name).mkdir()
        for path in sorted(folder.iterdir(), reverse=True):  # made in another order, with other content
            Image.new("L", (9, 9)).save(moved / folder.name / path.name)
    again = open_folder(moved, 32)
    assert names(again.train) == names(data.train)
    assert names(again.test) == names(data.test)
    paths = [Path("a") / f"{number}.png" for number in range(20)]
    train, test = split_class(paths)
    assert (len(train), len(test)) == (16, 4)
    other = [Path("b") / path.name for path in reversed(paths)]
    assert {path.name for path in split_class(other)[1]} == {path.name for path in test}


def test_a_new_class_does_not_change_the_split_of_the_others(photos: Path) -> None:
    before = names(open_folder(photos, 16).test)
    fill(photos / "ant", 5)
    after = names(open_folder(photos, 16).test)
    assert [name for name in after if not name.startswith("ant/")] == before


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            fill(tmp_path / part / name, count)
    fill(tmp_path / "test" / "ant", 1)
    data = open_folder(tmp_path, 16)
    assert data.classes == ["cat", "dog", "ant"]  # base classes first
    assert data.base == 2
    assert names(data.train) == [f"{name}/00{number}.png" for name in ("cat", "dog") for number in range(3)]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(data.test.labels.tolist()) == [0, 0, 1, 1, 2]
    shutil.rmtree(tmp_path / "test")
    assert len(open_folder(tmp_path, 16).test) == 0


def test_the_test_transform_cuts_the_centre_as_is_usual(photos: Path) -> None:
    data = open_folder(photos, 224)
    assert (data.transform.resize, data.transform.crop, data.transform.squash) == (256, 224, False)
    assert open_data(str(photos)).transform == data.transform
    assert open_data(str(photos), image_size=64).transform.crop == 64


def test_what_a_class_folder_may_hold_beside_pictures(photos: Path) -> None:
    (photos / "README.txt").write_text("no class")
    (photos / ".cache").mkdir()
    (photos / "cat" / "notes.txt").write_text("no picture")
    (photos / "cat" / ".hidden.png").write_text("no picture")
    (photos / "cat" / "more").mkdir()
    for ending in ("JPG", "jpeg", "webp", "bmp"):
        Image.new("RGB", (9, 9)).save(photos / "cat" / f"x.{ending}")
    classes = read_classes(photos)
    assert list(classes) == ["cat", "dog", "emu", "fox"]
    assert [path.name for path in classes["cat"]] == [
        *(f"{number:03d}.png" for number in range(10)),
        "x.JPG",
        "x.bmp",
        "x.jpeg",
        "x.webp",
    ]


def test_all_pictures_of_a_folder_of_shots_are_shots(photos: Path) -> None:
    shots = read_shots(photos)
    assert shots.classes == ["cat", "dog", "emu", "fox"]
    assert shots.source.labels.bincount().tolist() == [10, 7, 1, 2]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    fill(tmp_path / "flat", 2)
    for name, complaint in (
        ("absent", "absent: no such folder"),
        ("empty", "empty: no class in it; it needs one sub-folder a class"),
        ("flat", "flat: no class in it"),
        ("hollow", "hollow/cat: no picture in it"),
    ):
        for read in (read_shots, lambda folder: open_folder(folder, 16)):
            with pytest.raises(DataError, match=complaint) as raised:
                read(tmp_path / name)
            assert raised.value.exit_code == 3
    with pytest.raises(UsageError, match="--image-size 7: at least 8 pixels"):
        open_folder(tmp_path, 7)


def test_a_folder_has_no_official_sessions(photos: Path) -> None:
    with pytest.raises(UsageError, match="name the shots of session 1 with --shots DIR"):
        open_folder(photos, 16).session(1)


def test_checking_reads_every_picture(photos: Path) -> None:
    assert check_data(open_folder(photos, 16))["training_images"] == 16
    (photos / "fox" / "001.png").write_bytes((photos / "fox" / "001.png").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"fox/001\.png: damaged picture"):
        check_data(open_folder(photos, 16))


def test_a_class_may_be_a_link(photos: Path, tmp_path: Path) -> None:
    os.symlink(photos / "cat", photos / "lion")
    assert len(read_classes(photos)["lion"]) == 10
