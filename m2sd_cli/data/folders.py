"""A person's own images: folders with one sub-folder a class."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.datasets import DataSet, Shots, Skipped, Treatment
from m2sd_cli.data.image_files import find_images
from m2sd_cli.data.layout import (
    SPLIT_WORDS,
    TEST,
    TRAIN,
    Classes,
    find_split,
    refuse_faults,
    require_folder,
    scan_classes,
    visible_folders,
)
from m2sd_cli.data.names import as_pair, clash, class_name, is_class_name, name_digest, relative_name
from m2sd_cli.data.skipping import leave_out
from m2sd_cli.data.sources import FileImages
from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.progress import say

TEST_SHARE = 0.2


def read_classes(folder: Path) -> dict[str, list[Path]]:
    """List the images of each class, FOLDER/CLASS/*.jpg and other kinds, classes and images sorted by name.

    Files that are left out are reported.

    Raises:
        DataError: there is no such folder, it has no class, a class has no image, two classes have one name, or the
            folder is a split.
    """
    require_folder(folder)
    split = find_split(folder)
    if split is not None:
        parts = " or ".join(str(path) for path in (split.train, split.test) if path is not None)
        raise DataError(f"{folder}: a split, and no folder of classes; name {parts}")
    found = scan_classes(folder)
    refuse_faults(found.faults, folder)
    found.say_left_out()
    return found.images


def folder_name(folder: Path) -> str:
    """Return the bare name of a folder, as text, for records."""
    return folder.resolve().name.encode("utf-8", "replace").decode()


def read_shots(folder: Path) -> Shots:
    """Read the classes of a folder, in the order of their names, with all their images.

    Raises:
        DataError: as `read_classes` does.
    """
    classes = read_classes(folder)
    return Shots(list(classes), _source(classes, list(classes)))


def read_class(name: str, paths: Sequence[Path]) -> Shots:
    """Make the shots of one class of files and of the images in folders.

    Raises:
        UsageError: the class cannot have that name.
        DataError: a path does not exist, is named twice, or is a folder without an image.
    """
    wanted = class_name(name)
    if not is_class_name(wanted):
        raise UsageError(f"--class {name!r}: not the name of a class, which a folder could have; choose another")
    images = [path.absolute() for path in find_images(paths)]
    repeated = next((path for path, count in Counter(images).items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"{repeated}: named twice; name it once")
    return Shots([wanted], FileImages.from_items((path, 0) for path in images))


def usual_treatment(image_size: int) -> Treatment:
    """Return the treatment of photos.

    Args:
        image_size: side of the square that the network sees, in pixels.

    Raises:
        UsageError: the size is below 8 pixels.
    """
    if image_size < 8:
        raise UsageError(f"--image-size {image_size}: at least 8 pixels")
    resize = round(image_size * 256 / 224)
    return Treatment(
        TestTransform(resize=resize, crop=image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        Augmentation(size=image_size, store=resize),
    )


def open_folder(folder: Path, image_size: int, skipped: Sequence[Skipped] = ()) -> DataSet:
    """Open a folder as a data set: train/CLASS and test/CLASS, or just CLASS, split 80/20 the same way every time.

    Args:
        folder: all classes in its training part are base classes.
        image_size: side of the square that the network will see, in pixels.
        skipped: images to leave out; they keep their part in the split even if they are missing.

    Raises:
        DataError: as `read_classes` does; or the names of a test and a training class differ by case alone; or no image
            of a base class is left.
        UsageError: the size is below 8 pixels.
    """
    treatment = usual_treatment(image_size)
    require_folder(folder)
    layout = scan_folder(folder, skipped)
    refuse_faults(layout.faults, folder)
    for line in layout.remarks:
        say(line)
    for part in layout.parts:
        part.say_left_out()
    train, test = layout.train, layout.test
    names = layout.classes

    def session(number: int) -> Shots:
        raise UsageError(f"a folder has no sessions of its own; name the shots of session {number} with --shots DIR")

    data = DataSet(
        name=folder_name(folder),
        classes=names,
        base=len(train),
        train=_source(train, names),
        test=_source(test, names),
        sessions=0,
        session=session,
        transform=treatment.transform,
        augmentation=treatment.augmentation,
        location=folder,
    )
    return leave_out(data, skipped)


def _names_by_folder(skipped: Sequence[Skipped]) -> dict[str, list[str]]:
    """List the names of images in FOLDER/CLASS by CLASS; other names in the records are passed over."""
    names: dict[str, list[str]] = {}
    for each in skipped:
        folder, _, name = each.file.partition("/")
        if name and Path(name).name == name:
            names.setdefault(folder, []).append(name)
    return names


def _with_missing(paths: list[Path], left_out: Mapping[str, list[str]]) -> list[Path]:
    """Add the images that were left out and are missing to those of a class."""
    home = paths[0].parent
    present = {relative_name(path, home) for path in paths}
    missing = [home / name for name in left_out.get(home.name, ()) if name not in present]
    return sorted([*paths, *missing])


@dataclass(frozen=True)
class Layout:
    """The images of a folder for training and testing, its faults, and remarks on it."""

    train: Mapping[str, list[Path]]
    test: Mapping[str, list[Path]]
    parts: Sequence[Classes]
    faults: list[str]  # for which the folder is refused
    remarks: list[str]

    @property
    def classes(self) -> list[str]:
        """The names of all classes, base classes first."""
        return [*self.train, *(name for name in self.test if name not in self.train)]


def scan_folder(folder: Path, skipped: Sequence[Skipped] = ()) -> Layout:
    """Scan a folder for `open_folder`; nothing is refused or reported.

    Raises:
        DataError: the folder is missing, or cannot be read.
    """
    split = find_split(folder)
    if split is None:
        whole = scan_classes(folder)
        left_out = _names_by_folder(skipped)
        halves = {name: split_class(_with_missing(paths, left_out)) for name, paths in whole.images.items()}
        train, test = ({name: half[side] for name, half in halves.items()} for side in (0, 1))
        faults = [*whole.faults, *_on_parts_without_classes(folder, whole.images)]
        return Layout(train, test, [whole], faults, _on_class_called_train(folder))
    parts = [scan_classes(split.train)]
    faults = list(parts[0].faults)
    if split.test is not None:
        try:
            parts.append(scan_classes(split.test))
        except DataError as error:
            faults.append(str(error))
        else:
            faults += parts[1].faults
    train, test = parts[0].images, parts[1].images if len(parts) > 1 else {}
    layout = Layout(train, test, parts, faults, split.remarks())
    pair = None if faults else clash(layout.classes)
    if pair is not None:
        faults.append(f"{folder}: the classes {as_pair(*pair)}; rename one")
    return layout


def has_own_split(folder: Path) -> bool:
    """Tell if a folder is laid out as train/CLASS.

    Raises:
        DataError: the folder cannot be read.
    """
    return find_split(folder) is not None


def _on_class_called_train(folder: Path) -> list[str]:
    """List the remark that train/ is taken for a class although it has folders in it; none if it has no folder."""
    train = folder / TRAIN
    inside = visible_folders(train) if os.path.isdir(train) else []
    return [f"{train}: it holds images itself, so it is a class, and no part of a split"] * bool(inside)


def _on_parts_without_classes(folder: Path, names: Collection[str]) -> list[str]:
    """List the fault of a folder whose classes all have names of a split's parts; none if another class is there."""
    if len(names) < 2 or not {name.lower() for name in names} <= {TRAIN, *SPLIT_WORDS}:
        return []
    parts = " and ".join(f"{name}/" for name in sorted(names))
    return [f"{folder}: {parts} hold images themselves: no classes; sort them into {TRAIN}/CLASS and {TEST[0]}/CLASS"]


def split_class(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Split a class by the SHA-256 of the file names: four fifths for training, one fifth for testing.

    The choice depends on the names alone, not on their order or the path of the folder. A class of one image is
    trained on and not tested.
    """
    ranked = sorted(paths, key=name_digest)
    test = set(ranked[: max(1, round(TEST_SHARE * len(paths)))]) if len(paths) > 1 else set()
    return [path for path in paths if path not in test], [path for path in paths if path in test]


def _source(classes: Mapping[str, list[Path]], names: list[str]) -> FileImages:
    label = {name: number for number, name in enumerate(names)}
    return FileImages.from_items((path, label[name]) for name, paths in classes.items() for path in paths)
