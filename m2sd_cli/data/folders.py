"""A person's own images: folders with one sub-folder a class."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.datasets import DataSet, Shots, Skipped
from m2sd_cli.data.kinds import listed_kinds
from m2sd_cli.data.names import as_pair, clash, class_name, is_text, name_digest, relative_name
from m2sd_cli.data.picture_files import is_passed_over, is_run_folder, list_folder, list_images
from m2sd_cli.data.skipping import leave_out
from m2sd_cli.data.sources import FileImages
from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.paths import refuse_address
from m2sd_cli.progress import say

TEST_SHARE = 0.2
NAMED = 5  # folders in a message


def read_classes(folder: Path) -> dict[str, list[Path]]:
    """List the pictures of each class, FOLDER/CLASS/*.jpg and other kinds, classes and pictures sorted by name.

    A class may be a link to a folder. Folders that are hidden or the system's own are passed over; a run folder is left
    out, and that is reported.

    Raises:
        DataError: there is no such folder, no class in it, a class without a picture, or two of one name.
    """
    if not os.path.isdir(folder):
        refuse_address(folder)
        raise DataError(f"{folder}: no such folder")
    inside = sorted(_class_folders(folder), key=lambda path: (class_name(path.name), path.name))
    if not inside:
        raise DataError(f"{folder}: no class in it; it needs one sub-folder a class, holding that class's pictures")
    for path in inside:
        if not is_text(path.name):
            raise DataError(f"{path}: the name of a class has to be UTF-8; rename the folder")
    _refuse_clash(folder, [path.name for path in inside])
    classes = {}
    for path in inside:
        pictures = list_images(path)
        if pictures:
            classes[class_name(path.name)] = pictures
        elif is_run_folder(list_folder(path)):
            say(f"{path}: a run folder, and no class; it is left out")
        else:
            raise DataError(f"{path}: no picture in it ({listed_kinds()})")
    if not classes:
        raise DataError(f"{folder}: no class in it; it needs one sub-folder a class, holding that class's pictures")
    return classes


def _class_folders(folder: Path) -> Iterator[Path]:
    for path in list_folder(folder):
        if is_passed_over(path):
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            why = "a link that leads nowhere" if os.path.islink(path) else error.strerror
            raise DataError(f"{path}: cannot be read ({why}); it might be a class") from None
        if stat.S_ISDIR(mode):
            yield path


def _refuse_clash(folder: Path, names: Sequence[str]) -> None:
    pair = clash(names)  # one class on a file system that ignores case, and to a person
    if pair is not None:
        raise DataError(f"{folder}: the classes {as_pair(*pair)}; rename one")


def folder_name(folder: Path) -> str:
    """Return the bare name of a folder, as text, for records."""
    return folder.resolve().name.encode("utf-8", "replace").decode()


def read_shots(folder: Path) -> Shots:
    """Read the classes of a folder, in the order of their names, with all their pictures.

    Raises:
        DataError: as `read_classes` does.
    """
    classes = read_classes(folder)
    return Shots(list(classes), _source(classes, list(classes)))


def open_folder(folder: Path, image_size: int, skipped: Sequence[Skipped] = ()) -> DataSet:
    """Open a folder as a data set: train/CLASS and test/CLASS, or just CLASS, split 80/20 the same way every time.

    Args:
        folder: all classes in its training part are base classes.
        image_size: side of the square that the network will see, in pixels.
        skipped: pictures to leave out, which have their part in the split even if they are missing.

    Raises:
        DataError: as `read_classes` does, or a test class is named as a training class but for its case, or no picture
            of a base class is left.
        UsageError: the size is below 8 pixels.
    """
    if image_size < 8:
        raise UsageError(f"--image-size {image_size}: at least 8 pixels")
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder")
    if has_own_split(folder):
        _say_split(folder)
        train, test_folder = read_classes(folder / "train"), folder / "test"
        test = read_classes(test_folder) if os.path.isdir(test_folder) or os.path.islink(test_folder) else {}
    else:
        _say_class_called_train(folder)
        left_out = _names_by_folder(skipped)
        parts = {name: split_class(_with_missing(paths, left_out)) for name, paths in read_classes(folder).items()}
        train = {name: part[0] for name, part in parts.items()}
        test = {name: part[1] for name, part in parts.items()}
    names = [*train, *(name for name in test if name not in train)]
    _refuse_clash(folder, names)

    def session(number: int) -> Shots:
        raise UsageError(f"a folder has no official sessions: name the shots of session {number} with --shots DIR")

    resize = round(image_size * 256 / 224)
    data = DataSet(
        name=folder_name(folder),
        classes=names,
        base=len(train),
        train=_source(train, names),
        test=_source(test, names),
        sessions=0,
        session=session,
        transform=TestTransform(resize=resize, crop=image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        augmentation=Augmentation(size=image_size, store=resize),
        location=folder,
    )
    return leave_out(data, skipped)


def _names_by_folder(skipped: Sequence[Skipped]) -> dict[str, list[str]]:
    """List the names of pictures in FOLDER/CLASS by CLASS; records may say anything else, which is passed over."""
    names: dict[str, list[str]] = {}
    for each in skipped:
        folder, _, name = each.file.partition("/")
        if name and Path(name).name == name:
            names.setdefault(folder, []).append(name)
    return names


def _with_missing(paths: list[Path], left_out: Mapping[str, list[str]]) -> list[Path]:
    """Add the pictures that were left out and are missing to those of a class."""
    home = paths[0].parent
    present = {relative_name(path, home) for path in paths}
    missing = [home / name for name in left_out.get(home.name, ()) if name not in present]
    return sorted([*paths, *missing])


def has_own_split(folder: Path) -> bool:
    """Tell if a folder is laid out as train/CLASS; a class may be called train, too.

    It is a class if it has no folder of a class in it, or pictures of its own and other classes beside it.

    Raises:
        DataError: FOLDER/train cannot be read.
    """
    train = folder / "train"
    if not os.path.isdir(train) or not any(_visible_folders(train)):
        return False
    return not list_images(train) or not _beside_split(folder)


def _visible_folders(folder: Path) -> list[Path]:
    """List the folders in a folder that may be classes, sorted."""
    return sorted(path for path in list_folder(folder) if not is_passed_over(path) and os.path.isdir(path))


def _beside_split(folder: Path) -> list[str]:
    """List the folders beside train/ and test/ that are no run folders."""
    others = [path for path in _visible_folders(folder) if path.name not in ("train", "test")]
    return [path.name for path in others if not is_run_folder(list_folder(path))]


def _say_split(folder: Path) -> None:
    """Report the folders that a split into train/ and test/ leaves out, if any."""
    others = _beside_split(folder)
    if others:
        parts, them = ("train/ and test/", "them") if os.path.isdir(folder / "test") else ("train/", "it")
        ignored = "1 other folder beside {} is" if len(others) == 1 else f"{len(others)} other folders beside {{}} are"
        say(f"{folder}: {parts} found: a split; {ignored.format(them)} ignored: {_listed(others)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _say_class_called_train(folder: Path) -> None:
    """Report that train/ is taken for a class although it has folders in it, if that is so."""
    train = folder / "train"
    inside = _visible_folders(train) if os.path.isdir(train) else []
    if inside:
        names = _listed([path.name for path in inside])
        say(f"{train}: it holds pictures itself, so it is a class; the folders in it are ignored: {names}")


def split_class(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Split a class: four fifths for training, one fifth for testing, chosen by the SHA-256 of the file names.

    The choice depends on the names alone, not on their order or the path of the folder. A class of one picture is
    trained on and not tested.
    """
    ranked = sorted(paths, key=name_digest)
    test = set(ranked[: max(1, round(TEST_SHARE * len(paths)))]) if len(paths) > 1 else set()
    return [path for path in paths if path not in test], [path for path in paths if path in test]


def _source(classes: dict[str, list[Path]], names: list[str]) -> FileImages:
    label = {name: number for number, name in enumerate(names)}
    return FileImages.from_items((path, label[name]) for name, paths in classes.items() for path in paths)
