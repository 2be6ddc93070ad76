"""A person's own folders: the split, the layouts, and what is refused."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from m2sd_cli.data.check import check_data
from m2sd_cli.data.folders import has_own_split, open_folder, read_classes, read_shots, split_class
from m2sd_cli.data.locate import open_data
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.progress import report_to
from tests.data.helpers import Listener, fill, names


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


def test_what_a_class_folder_may_hold_beside_images(photos: Path) -> None:
    (photos / "README.txt").write_text("no class")
    (photos / ".cache").mkdir()
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "cat" / ".hidden.png").write_text("no image")
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


def test_all_images_of_a_folder_of_shots_are_shots(photos: Path) -> None:
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
        ("hollow", "hollow/cat: no image in it"),
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


def test_checking_reads_every_image(photos: Path) -> None:
    assert check_data(open_folder(photos, 16)).training_images == 16
    (photos / "fox" / "001.png").write_bytes((photos / "fox" / "001.png").read_bytes()[:-30])
    (bad,) = check_data(open_folder(photos, 16)).unreadable
    assert bad.file == "fox/001.png"
    assert bad.reason.startswith("damaged image")


def test_a_class_may_be_a_link(photos: Path, tmp_path: Path) -> None:
    os.symlink(photos / "cat", photos / "lion")
    assert len(read_classes(photos)["lion"]) == 10


@pytest.mark.parametrize("target", ["nowhere", "lion", "cat/../lion"])
def test_a_class_that_links_nowhere_is_not_passed_over(photos: Path, target: str) -> None:
    (photos / "lion").symlink_to(target)
    with pytest.raises(DataError, match=r"lion: cannot be read \(a link that leads nowhere\)"):
        read_classes(photos)
    fill(photos / "train" / "cat", 2)
    (photos / "test").symlink_to(target)
    (photos / "lion").unlink()
    with pytest.raises(DataError, match="test: no such folder"):
        open_folder(photos, 16)


@pytest.mark.parametrize("target", ["..", "."])
def test_a_class_that_links_to_its_own_parent_has_no_image(photos: Path, target: str) -> None:
    (photos / "loop").symlink_to(target, target_is_directory=True)
    with pytest.raises(DataError, match="photos/loop: no image in it"):
        open_folder(photos, 16)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_the_name_of_a_class_is_in_the_composed_form(tmp_path: Path) -> None:
    for name in (DECOMPOSED, "z", "\u212b"):  # the last is the sign of an angstrom, and becomes a letter
        fill(tmp_path / name, 2)
    classes = read_classes(tmp_path)
    assert list(classes) == [COMPOSED, "z", "\u00c5"]
    assert [paths[0].parent.name for paths in classes.values()] == [DECOMPOSED, "z", "\u212b"]
    assert open_folder(tmp_path, 16).classes == [COMPOSED, "z", "\u00c5"]
    assert read_shots(tmp_path).classes == [COMPOSED, "z", "\u00c5"]


def test_the_order_of_classes_does_not_depend_on_the_form_of_their_names(tmp_path: Path) -> None:
    for folder, classes in (("a", ["caf\u00e9", "cafz"]), ("b", ["cafe\u0301", "cafz"])):
        for name in classes:
            fill(tmp_path / folder / name, 1)
    assert read_shots(tmp_path / "a").classes == read_shots(tmp_path / "b").classes


CLASHES = [
    ("Cat", "cat", r"'Cat' and 'cat' differ only by case or spaces; rename one"),
    ("\u00c9tude", "e\u0301tude", ".* differ only by case or spaces; rename one"),
    ("STRASSE", "stra\u00dfe", ".* differ only by case or spaces; rename one"),
    (COMPOSED, DECOMPOSED, r"'cafe\\u0301' and 'caf\\xe9' are the same in Unicode; rename one"),
]


@pytest.mark.parametrize(("first", "second", "says"), CLASHES)
def test_two_classes_of_one_name_are_refused(tmp_path: Path, first: str, second: str, says: str) -> None:
    for name in (first, second, "other"):
        fill(tmp_path / "all" / name, 2)
        fill(tmp_path / "parts" / "train" / name, 2)
    for read in (read_shots, lambda folder: open_folder(folder, 16)):
        with pytest.raises(DataError, match=f"all: the classes {says}"):
            read(tmp_path / "all")
    with pytest.raises(DataError, match=f"train: the classes {says}"):
        open_folder(tmp_path / "parts", 16)


def test_test_classes_are_those_of_training_by_name_in_any_form(tmp_path: Path) -> None:
    fill(tmp_path / "train" / COMPOSED, 2)
    fill(tmp_path / "train" / "Dog", 2)
    fill(tmp_path / "test" / DECOMPOSED, 2)
    data = open_folder(tmp_path, 16)
    assert (data.classes, data.base) == (["Dog", COMPOSED], 2)
    assert data.test.labels.tolist() == [1, 1]
    fill(tmp_path / "test" / "dog", 2)
    with pytest.raises(DataError, match=f"{tmp_path}: the classes 'Dog' and 'dog' differ only by case or spaces;"):
        open_folder(tmp_path, 16)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("open_it", [read_shots, lambda folder: open_folder(folder, 16)])
def test_thousands_of_classes_take_a_few_calls_each(tmp_path: Path, open_it: Callable[[Path], object]) -> None:
    work = []
    for classes in (500, 2000):
        for number in range(classes):
            folder = tmp_path / str(classes) / f"class {number:04d}"
            folder.mkdir(parents=True)
            (folder / "1.png").touch()
        work.append(calls_of(partial(open_it, tmp_path / str(classes))))
    assert work[1] < 4.5 * work[0]
    assert work[1] / 2000 < 400


def heard(folder: Path) -> tuple[list[str], list[str]]:
    """Open a folder; return its classes, and what is said."""
    reporter = Listener()
    with report_to(reporter):
        return open_folder(folder, 16).classes, reporter.said


@pytest.fixture
def vehicles(tmp_path: Path) -> Path:
    for name in ("bus", "car", "train"):
        fill(tmp_path / "vehicles" / name, 3)
    return tmp_path / "vehicles"


@pytest.mark.parametrize("inside", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN"])
def test_a_folder_of_the_system_makes_no_class_and_no_split(vehicles: Path, inside: str) -> None:
    for folder in (vehicles, vehicles / "train", vehicles / "car"):
        fill(folder / inside / "old", 2)
        shutil.copy(folder / inside / "old" / "000.png", folder / inside)
    assert heard(vehicles) == (["bus", "car", "train"], [])
    assert read_shots(vehicles).classes == ["bus", "car", "train"]


def test_a_class_called_train_that_has_folders_stays_a_class(vehicles: Path) -> None:
    fill(vehicles / "train" / "steam", 2)
    classes, said = heard(vehicles)
    assert classes == ["bus", "car", "train"]
    assert said == [
        f"{vehicles / 'train'}: it holds images itself, so it is a class, and no part of a split",
        f"{vehicles}: left out: 2 images in folders inside of classes (train): a class has its images "
        "in its own folder; "
        "move them there",
    ]
    assert has_own_split(vehicles) is False


@pytest.mark.parametrize(
    ("names", "refused"), [("train/ test", True), ("Train/ val/ test", True), ("test/ bus", False)]
)
def test_parts_of_a_split_with_images_of_their_own_are_no_classes(tmp_path: Path, names: str, refused: bool) -> None:
    for name in names.split():
        fill(tmp_path / "x" / name, 2)
    if refused:
        with pytest.raises(DataError, match=r"hold images themselves: no classes; sort them into train/CLASS and"):
            heard(tmp_path / "x")
    else:
        assert heard(tmp_path / "x") == (["bus", "test"], [])


@pytest.mark.parametrize("parts", [("train",), ("Train", "valid"), ("train", "test")])
def test_a_split_is_no_folder_of_classes_to_teach_or_test(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        fill(tmp_path / part / "red", 2)
    ways = " or ".join(str(tmp_path / part) for part in parts)
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))}: a split, .*; name {re.escape(ways)}$"):
        read_classes(tmp_path)
    assert list(read_classes(tmp_path / parts[-1])) == ["red"]


def test_folders_beside_a_split_are_named(tmp_path: Path) -> None:
    for name in ("train/red", "train/blue", "test/red", "bus"):
        fill(tmp_path / "x" / name, 2)
    assert heard(tmp_path / "x") == (
        ["blue", "red"],
        [f"{tmp_path / 'x'}: train/ and test/ found: a split; 1 other folder beside them is ignored: bus"],
    )
    for name in ("a", "c", "d", "e", "f"):
        fill(tmp_path / "x" / name, 1)
    shutil.rmtree(tmp_path / "x" / "test")
    _, said = heard(tmp_path / "x")
    assert said == [
        f"{tmp_path / 'x'}: train/ found: a split; 6 other folders beside it are ignored: a, bus, c, d, e and 1 more"
    ]


@pytest.mark.parametrize("file", ["head.json", "pretrain.json", ".writer.json"])
@pytest.mark.parametrize("split", [False, True])
def test_a_run_folder_is_no_class(vehicles: Path, file: str, split: bool) -> None:
    run = vehicles / "m2sd-run"
    (run / "training").mkdir(parents=True)
    (run / file).touch()
    fill(run / "reports", 1)
    if split:
        for path in ("bus", "car", "train"):
            (vehicles / "parts").mkdir(exist_ok=True)
            shutil.move(vehicles / path, vehicles / "parts" / path)
        (vehicles / "parts").rename(vehicles / "train")
    said = [] if split else [f"{run}: a run folder, and no class; it is left out"]
    assert heard(vehicles) == (["bus", "car", "train"], said)
    fill(vehicles / "van", 1)
    (vehicles / "van" / file).touch()  # beside images it is a file like any other
    assert "van" in (read_shots(vehicles).classes if not split else ["van"])


def test_a_run_folder_alone_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "head.json").touch()
    with pytest.raises(DataError, match="no class in it"):
        open_folder(tmp_path, 16)
