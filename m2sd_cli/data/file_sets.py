"""The benchmarks of image files in their usual layouts: CUB-200-2011 and miniImageNet."""

import csv
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

import torch

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import BUILT_IN, DataSetInfo
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.sources import FileImages
from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform
from m2sd_cli.errors import DataError
from m2sd_cli.reading import quoted, read_regular

LIST_LIMIT = 64 * 2**20  # bytes of a list; CUB's and miniImageNet's have three at most
CUB_TRANSFORM = TestTransform(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)
CUB_AUGMENTATION = Augmentation(size=224, store=256)
MINI_TRANSFORM = TestTransform(resize=92, crop=84, mean=IMAGENET_MEAN, std=IMAGENET_STD, squash=True)
MINI_AUGMENTATION = Augmentation(size=84, store=168)

Item = tuple[Path, int]


def open_cub200(root: Path) -> DataSet:
    """Read `root`/CUB_200_2011 (Wah et al., 2011) by its own lists; label = class id - 1.

    Raises:
        DataError: a list or an image that it names is missing or makes no sense.
    """
    info = BUILT_IN["cub200"]
    home = root / info.layout
    images = dict(_pairs(home / "images.txt", files=True))
    in_train = {key: value == "1" for key, value in _pairs(home / "train_test_split.txt")}
    names = [name for _, name in _pairs(home / "classes.txt")]
    label = {str(number): number - 1 for number in range(1, len(names) + 1)}
    labels = {}
    for key, value in _pairs(home / "image_class_labels.txt"):
        if value not in label:
            wrong = f"image {quoted(key)} is of class {quoted(value)}, not 1 to {len(names)}"
            raise DataError(f"{home / 'image_class_labels.txt'}: {wrong}")
        labels[key] = label[value]
    if not images.keys() == labels.keys() == in_train.keys():
        raise DataError(f"{home}: images.txt, image_class_labels.txt and train_test_split.txt name different images")
    items = {key: (home / "images" / name, labels[key]) for key, name in images.items()}
    train = [item for key, item in items.items() if in_train[key]]
    test = [item for key, item in items.items() if not in_train[key]]
    by_path = {path.relative_to(root).as_posix(): label for path, label in train}
    return _file_set(info, home, names, train, test, by_path, root, CUB_TRANSFORM, CUB_AUGMENTATION)


def open_miniimagenet(root: Path) -> DataSet:
    """Read `root`/miniimagenet: images/*.jpg beside split/train.csv and split/test.csv.

    The label of a class is the order of its first appearance in train.csv.

    Raises:
        DataError: a list or an image that it names is missing or makes no sense.
    """
    info = BUILT_IN["miniimagenet"]
    home = root / info.layout
    rows = {part: _csv(home / "split" / f"{part}.csv") for part in ("train", "test")}
    order = {name: label for label, name in enumerate(dict.fromkeys(label for _, label in rows["train"]))}
    unknown = {label for _, label in rows["test"]} - order.keys()
    if unknown:
        raise DataError(f"{home / 'split' / 'test.csv'}: class {quoted(min(unknown))} is not in train.csv")
    train, test = ([(home / "images" / file, order[name]) for file, name in rows[part]] for part in ("train", "test"))
    by_name = {path.name: label for path, label in train}
    return _file_set(info, home, list(order), train, test, by_name, None, MINI_TRANSFORM, MINI_AUGMENTATION)


def _file_set(
    info: DataSetInfo,
    home: Path,
    classes: list[str],
    train: list[Item],
    test: list[Item],
    labels: dict[str, int],
    split_root: Path | None,
    transform: TestTransform,
    augmentation: Augmentation,
) -> DataSet:
    """A data set of files. `labels` has the label of each training image, by what the split calls it after `split_root`
    was left out, or by its bare name where the split's paths are of no use (`split_root` None).
    """
    if len(classes) != info.classes:
        raise DataError(f"{home}: {len(classes)} classes, not the {info.classes} of {info.name}")

    def session(number: int) -> Shots:
        items = []
        for line in info.split[number - 1]:
            key = line if split_root is not None else line.rsplit("/", 1)[-1]
            if key not in labels:
                raise DataError(f"{home}: {key} of session {number} is not among its training images")
            path = split_root / key if split_root is not None else home / "images" / key
            items.append((path, labels[key]))
        taught = sorted({label for _, label in items})
        relabel = {label: number for number, label in enumerate(taught)}
        source = _source((path, relabel[label]) for path, label in items)
        return Shots([classes[label] for label in taught], source)

    return DataSet(
        name=info.name,
        classes=classes,
        base=info.base,
        train=_source(item for item in train if item[1] < info.base),
        test=_source(test),
        sessions=len(info.split),
        session=session,
        transform=transform,
        augmentation=augmentation,
        location=home,
    )


def _source(items: Iterable[Item]) -> FileImages:
    listed = list(items)
    return FileImages(
        tuple(path for path, _ in listed), torch.tensor([label for _, label in listed], dtype=torch.int64)
    )


def _read(path: Path) -> list[str]:
    try:
        return read_regular(path, LIST_LIMIT).decode().splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read (not UTF-8)") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _pairs(path: Path, files: bool = False) -> list[tuple[str, str]]:
    """The lines 'KEY VALUE' of a list, whose values may name files."""
    pairs = []
    for number, line in enumerate(_read(path), start=1):
        key, _, value = line.strip().partition(" ")
        if not value:
            raise DataError(f"{path}, line {number}: not 'KEY VALUE'")
        if files:
            _stay_inside(value, path, number)
        pairs.append((key, value))
    return pairs


def _csv(path: Path) -> list[tuple[str, str]]:
    """The columns filename and label."""
    reader = csv.DictReader(_read(path))
    rows = []
    try:
        if not {"filename", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: needs the columns filename,label")
        for row in reader:
            if not row["filename"] or not row["label"]:
                raise DataError(f"{path}, line {reader.line_num}: not 'FILENAME,LABEL'")
            _stay_inside(row["filename"], path, reader.line_num)
            rows.append((row["filename"], row["label"]))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def _stay_inside(name: str, path: Path, line: int) -> None:
    """A list names files below its data set's own folder, on every system.

    Raises:
        DataError: it leads elsewhere, or is no name of a file.
    """
    found = PureWindowsPath(name)  # takes either slash, and drives
    if found.anchor or ".." in found.parts or "\0" in name:
        raise DataError(
            f"{path}, line {line}: {quoted(repr(name))} is not the name of a file below the data set's folder"
        )
