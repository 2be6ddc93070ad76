"""CUB-200-2011 and miniImageNet in their usual layouts, on look-alikes made of one image under many names."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image

from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.data.check import check_data
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import DataError

CUB_LISTS = ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"]


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def link(image: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(image, path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.jpg"
    Image.linear_gradient("L").resize((12, 8)).convert("RGB").save(path)
    return path


def make_cub200(root: Path, image: Path | None) -> Path:
    """One training image a base class, the official shots, one test image a class."""
    home = root / "CUB_200_2011"
    lines = [line.removeprefix("CUB_200_2011/images/") for session in DATA_SETS["cub200"].split for line in session]
    novel = sorted({line.split("/")[0] for line in lines})
    classes = [*(f"{number:03d}.Bird_{number}" for number in range(1, 101)), *novel]
    train = [*(f"{name}/seen.jpg" for name in classes[:100]), *lines]
    test = [f"{name}/unseen.jpg" for name in classes]
    images = [*test, *train]
    write(home / "classes.txt", (f"{number} {name}" for number, name in enumerate(classes, 1)))
    write(home / "images.txt", (f"{number} {name}" for number, name in enumerate(images, 1)))
    label = {name: number for number, name in enumerate(classes, 1)}
    write(
        home / "image_class_labels.txt",
        (f"{number} {label[name.split('/')[0]]}" for number, name in enumerate(images, 1)),
    )
    write(home / "train_test_split.txt", (f"{number} {int(number > 200)}" for number in range(1, len(images) + 1)))
    if image:
        link(image, (home / "images" / name for name in images))
    return home


def make_miniimagenet(root: Path, image: Path | None) -> Path:
    """One training image a base class, the official shots, one test image a class."""
    home = root / "miniimagenet"
    lines = [line.split("/")[-2:] for session in DATA_SETS["miniimagenet"].split for line in session]
    base = [f"n9{number:07d}" for number in range(60)]
    train = [*((f"{name}00000001.jpg", name) for name in reversed(base)), *((file, name) for name, file in lines)]
    classes = list(dict.fromkeys(name for _, name in train))
    test = [(f"{name}00009999.jpg", name) for name in sorted(classes)]
    for part, rows in (("train", train), ("test", test)):
        write(home / "split" / f"{part}.csv", ["filename,label", *(",".join(row) for row in rows)])
    if image:
        link(image, (home / "images" / file for file, _ in [*train, *test]))
    return home


def test_cub200(tmp_path: Path, image: Path) -> None:
    home = make_cub200(tmp_path, image)
    data = open_data("cub200", tmp_path)
    assert (data.name, data.base, len(data.classes), data.sessions) == ("cub200", 100, 200, 10)
    assert (data.classes[0], data.classes[100]) == ("001.Bird_1", "101.White_Pelican")
    assert data.train.labels.tolist() == list(range(100))
    assert data.test.labels.tolist() == list(range(200))
    assert data.location == home
    for number in range(1, 11):
        shots = data.session(number)
        assert shots.classes == data.classes[90 + 10 * number : 100 + 10 * number]
        assert torch.bincount(shots.source.labels).tolist() == [5] * 10
        assert isinstance(shots.source, FileImages)
        official = [tmp_path / line for line in DATA_SETS["cub200"].split[number - 1]]
        assert list(shots.source.paths) == official
        for path, label in zip(shots.source.paths, shots.source.labels.tolist(), strict=True):
            assert path.parent.name == shots.classes[label]
    pixels, _ = next(iter(data.train.batches(data.transform, 2)))
    assert pixels.shape == (2, 3, 224, 224)


def test_miniimagenet(tmp_path: Path, image: Path) -> None:
    home = make_miniimagenet(tmp_path, image)
    data = open_data("miniimagenet", tmp_path)
    assert (data.name, data.base, len(data.classes), data.sessions) == ("miniimagenet", 60, 100, 8)
    assert data.classes[0] == "n90000059"  # the first in train.csv
    assert data.train.labels.tolist() == list(range(60))
    assert sorted(data.test.labels.tolist()) == list(range(100))
    for number in range(1, 9):
        shots = data.session(number)
        assert shots.classes == data.classes[55 + 5 * number : 60 + 5 * number]
        assert isinstance(shots.source, FileImages)
        assert {path.parent for path in shots.source.paths} == {home / "images"}
        for path, label in zip(shots.source.paths, shots.source.labels.tolist(), strict=True):
            assert path.name.startswith(shots.classes[label])
    found = check_data(data)
    assert (found.name, found.classes, found.base_classes, found.sessions) == ("miniimagenet", 100, 60, 8)
    assert (found.training_images, found.test_images, found.is_refused) == (60, 100, False)


def test_a_missing_image_is_named(tmp_path: Path, image: Path) -> None:
    home = make_miniimagenet(tmp_path, image)
    missing = DATA_SETS["miniimagenet"].split[7][3].rsplit("/", 1)[-1]
    (home / "images" / missing).unlink()
    found = check_data(open_data("miniimagenet", tmp_path))
    assert [(each.file, each.reason) for each in found.unreadable] == [(f"images/{missing}", "no such file")]
    assert found.is_refused


@pytest.mark.parametrize("name", CUB_LISTS)
def test_every_list_of_cub200_is_needed(tmp_path: Path, name: str) -> None:
    home = make_cub200(tmp_path, None)
    (home / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: cannot be read \(No such file"):
        open_data("cub200", tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("images.txt", "2 002.Bird_2/unseen.jpg", "2", "images.txt, line 2: not 'KEY VALUE'"),
        ("images.txt", "2 002.", "9999 002.", "name different images"),
        ("train_test_split.txt", "7 0\n", "", "name different images"),
        ("classes.txt", "200 ", "", "199 classes, not the 200 of cub200|not 'KEY VALUE'"),
        ("image_class_labels.txt", "2 2\n", "2 two\n", "image_class_labels.txt"),
        ("image_class_labels.txt", "2 2\n", "2 201\n", "image_class_labels.txt"),
        ("image_class_labels.txt", "2 2\n", "2 0\n", "image_class_labels.txt"),
    ],
)
def test_lists_of_cub200_that_make_no_sense(tmp_path: Path, name: str, old: str, new: str, complaint: str) -> None:
    edit(make_cub200(tmp_path, None) / name, old, new)
    with pytest.raises(DataError, match=complaint):
        open_data("cub200", tmp_path)


def test_a_missing_class_of_cub200(tmp_path: Path) -> None:
    home = make_cub200(tmp_path, None)
    lines = (home / "classes.txt").read_text().splitlines()
    write(home / "classes.txt", lines[:-1])
    with pytest.raises(DataError, match="CUB_200_2011"):
        open_data("cub200", tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_table_of_miniimagenet_is_needed(tmp_path: Path, part: str) -> None:
    home = make_miniimagenet(tmp_path, None)
    edit(home / "split" / f"{part}.csv", "filename,label", "file,class")
    with pytest.raises(DataError, match=f"{part}.csv: needs the columns filename,label"):
        open_data("miniimagenet", tmp_path)
    (home / "split" / f"{part}.csv").unlink()
    with pytest.raises(DataError, match=f"{part}.csv: cannot be read"):
        open_data("miniimagenet", tmp_path)


def test_tables_of_miniimagenet_that_make_no_sense(tmp_path: Path) -> None:
    home = make_miniimagenet(tmp_path, None)
    table = home / "split" / "train.csv"
    text = table.read_text()
    table.write_text(text.replace(",n90000003\n", ",n90000004\n"))
    with pytest.raises(DataError, match=r"class n90000003 is not in train\.csv"):
        open_data("miniimagenet", tmp_path)
    table.write_text("".join(line for line in text.splitlines(True) if "n90000003" not in line))
    edit(home / "split" / "test.csv", "n9000000300009999.jpg,n90000003\n", "")
    with pytest.raises(DataError, match="99 classes, not the 100 of miniimagenet"):
        open_data("miniimagenet", tmp_path)


OUTSIDE = ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "a\\..\\x.jpg", "C:\\x.jpg", "C:x.jpg", "\\x.jpg", "a\0.jpg"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_list_does_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    edit(make_cub200(tmp_path, None) / "images.txt", "2 002.Bird_2/unseen.jpg", f"2 {name}")
    with pytest.raises(DataError, match=r"images\.txt, line 2: .* is not the name of a file below"):
        open_data("cub200", tmp_path)
    edit(make_miniimagenet(tmp_path, None) / "split" / "test.csv", "n9000000300009999.jpg", name)
    with pytest.raises(DataError, match=r"test\.csv, line 45: .* is not the name of a file below"):
        open_data("miniimagenet", tmp_path)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("n9000000300009999.jpg", "line 45: not 'FILENAME,LABEL'"),
        (",n90000003", "line 45: not 'FILENAME,LABEL'"),
        ("x" * 200_000 + ",n90000003", "line 44: field larger than field limit"),
        ("\xff.jpg,n90000003", r"not UTF-8"),
    ],
    ids=range(4),
)
def test_a_row_that_is_none(tmp_path: Path, row: str, complaint: str) -> None:
    table = make_miniimagenet(tmp_path, None) / "split" / "test.csv"
    content = table.read_bytes().replace(b"n9000000300009999.jpg,n90000003", row.encode("latin-1"))
    table.write_bytes(content)
    with pytest.raises(DataError, match=f"test.csv.*{complaint}"):
        open_data("miniimagenet", tmp_path)


def test_lists_that_are_no_files_or_too_large(tmp_path: Path) -> None:
    home = make_cub200(tmp_path, None)
    (home / "images.txt").unlink()
    os.mkfifo(home / "images.txt")
    with pytest.raises(DataError, match=r"images\.txt: cannot be read \(not a regular file"):
        open_data("cub200", tmp_path)
    (home / "images.txt").unlink()
    with (home / "images.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"images\.txt: cannot be read \(larger than"):
        open_data("cub200", tmp_path)


def test_an_official_shot_that_is_not_listed_is_named(tmp_path: Path) -> None:
    home = make_miniimagenet(tmp_path, None)
    lost = DATA_SETS["miniimagenet"].split[0][0].rsplit("/", 1)[-1]
    edit(home / "split" / "train.csv", lost, "other.jpg")
    with pytest.raises(DataError, match=f"{lost} of session 1 is not among its training images"):
        open_data("miniimagenet", tmp_path).session(1)
