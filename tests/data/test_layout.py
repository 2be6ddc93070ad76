"""Layouts of folders as people have them: what is taken, what is named as left out, and what is refused."""

import re
from pathlib import Path

import pytest

from m2sd_cli.data.folders import open_folder, read_shots
from m2sd_cli.data.image_files import find_images
from m2sd_cli.errors import DataError
from m2sd_cli.extras import install_extra
from m2sd_cli.progress import report_to
from tests.data.helpers import Listener, fill, names


def heard(folder: Path) -> tuple[list[str], list[str]]:
    """Open a folder; return the files that are tested on, and what is said."""
    reporter = Listener()
    with report_to(reporter):
        return names(open_folder(folder, 16).test), reporter.said


def parts(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        for class_name in ("cat", "dog"):
            fill(folder / name / class_name, 2, first=10 * number)
    return folder


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_val_is_the_test_set_where_there_is_no_test(tmp_path: Path, name: str) -> None:
    tested, said = heard(parts(tmp_path, "train", name))
    assert tested == ["cat/010.png", "cat/011.png", "dog/010.png", "dog/011.png"]
    assert said == [
        f"{tmp_path}: train/ and {name}/ found: a split",
        f"{tmp_path / name}: it is what is tested on, as there is no test/",
    ]
    tested, said = heard(parts(tmp_path, "test"))
    assert tested == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]
    assert said == [f"{tmp_path}: train/ and test/ found: a split; 1 other folder beside them is ignored: {name}"]


def test_the_parts_of_a_split_may_be_in_any_case(tmp_path: Path) -> None:
    tested, said = heard(parts(tmp_path, "Train", "TEST"))
    assert len(tested) == 4
    assert said == [f"{tmp_path}: Train/ and TEST/ found: a split"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "photos",
            r"photos: no image in it, but in its folders \(cat, dog\): if these are the classes, name .*photos inst",
        ),
        ("training", "training: no image in it, but in its folders .* call the parts train and test$"),
    ],
)
def test_classes_one_folder_deeper_are_refused_with_the_way_out(tmp_path: Path, name: str, says: str) -> None:
    parts(tmp_path, name)
    for read in (read_shots, lambda folder: open_folder(folder, 16)):
        with pytest.raises(DataError, match=says):
            read(tmp_path)


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.data.kinds.is_at_hand", lambda module: module == "PIL")
    parts(tmp_path, ".")
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/3.heic", "dog/raw.CR2", "dog/notes.txt", "dog/noname", "beside.jpg"):
        (tmp_path / name).touch()
    for name in ("cat/Thumbs.db", "cat/.DS_Store", "cat/._1.heic", "dog/desktop.ini", "list.csv"):
        (tmp_path / name).touch()
    fill(tmp_path / "cat" / "more", 4)
    fill(tmp_path / "__MACOSX" / "cat", 1)
    _, said = heard(tmp_path)
    heic = f"3 .heic: {install_extra('heic')}, or convert them"
    raw = "1 .cr2: convert it to jpg or png"
    unnamed = "1 without a suffix: no image by the name"
    assert said == [
        f"{tmp_path}: left out: 4 images in folders inside of classes (cat): a class has its images in its own "
        "folder; move them there; 1 image beside the folders of classes: each belongs into that of its class; "
        f"{heic}; {raw}; {unnamed}; and 1 file of 1 more kind"
    ]
    reporter = Listener()
    with report_to(reporter):
        assert len(find_images([tmp_path])) == 9
    assert reporter.said == [
        f"{tmp_path}: left out: {heic}; {raw}; {unnamed}; 1 .csv: no image by the name; 1 .txt: no image by the name"
    ]


def test_an_archive_is_not_left_out_in_silence(tmp_path: Path) -> None:
    parts(tmp_path, ".")
    for name in ("birds.zip", "more.tar.gz", "cat/more.ZIP"):
        (tmp_path / name).touch()
    _, said = heard(tmp_path)
    assert said == [
        f"{tmp_path}: left out: 2 .zip: archives; unpack them; 1 .gz: an archive; unpack it",
    ]
    with pytest.raises(DataError, match=r"birds\.zip: a file, and no folder; unpack it, and name the folder$"):
        open_folder(tmp_path / "birds.zip", 16)
    with pytest.raises(DataError, match=r"cat/000\.png: a file, and no folder$"):
        open_folder(tmp_path / "cat" / "000.png", 16)


def test_a_class_of_images_that_cannot_be_read_here_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.data.kinds.is_at_hand", lambda module: module == "PIL")
    parts(tmp_path, ".")
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / "1.heic").touch()
    says = rf"emu: no image in it that can be read: 1 \.heic: {re.escape(install_extra('heic'))}, or convert it$"
    with pytest.raises(DataError, match=says):
        open_folder(tmp_path, 16)
    with pytest.raises(DataError, match=says):
        find_images([tmp_path / "emu"])


def test_the_first_of_many_faults_says_how_to_see_all(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    parts(photos, ".")
    for name in ("emu", "fox"):
        (photos / name).mkdir()
    with pytest.raises(
        DataError, match=rf"emu: no image in it .*; and 1 more; to list them: m2sd data verify '{photos}'$"
    ):
        open_folder(photos, 16)


def test_links_to_folders_inside_a_class_are_not_left_out_in_silence(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    parts(photos, ".")
    fill(tmp_path / "elsewhere", 3)
    (photos / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    _, said = heard(photos)
    assert said == [
        f"{photos}: left out: 1 link to a folder inside of classes (cat): a class has its images in its own folder; "
        "put them there"
    ]
