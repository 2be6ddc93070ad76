"""CUB-200-2011 (Wah, Branson, Welinder, Perona, Belongie, 2011) in its published layout."""

from pathlib import Path

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.data.datasets import DataSet, Treatment
from m2sd_cli.data.listed_files import open_listed, read_lines, require_inside
from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform
from m2sd_cli.errors import DataError
from m2sd_cli.reading import quoted

INFO = DATA_SETS["cub200"]
TREATMENT = Treatment(
    TestTransform(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD), Augmentation(size=224, store=256)
)


def open_cub200(root: Path) -> DataSet:
    """Read `root`/CUB_200_2011 by its own lists; label = class id - 1.

    Raises:
        DataError: a list or an image that it names is missing or makes no sense.
    """
    home = root / INFO.layout
    images = dict(_read_pairs(home / "images.txt", files=True))
    in_train = {key: value == "1" for key, value in _read_pairs(home / "train_test_split.txt")}
    names = [name for _, name in _read_pairs(home / "classes.txt")]
    label = {str(number): number - 1 for number in range(1, len(names) + 1)}
    labels = {}
    for key, value in _read_pairs(home / "image_class_labels.txt"):
        if value not in label:
            wrong = f"image {quoted(key)} is of class {quoted(value)}, not 1 to {len(names)}; unpack the data set again"
            raise DataError(f"{home / 'image_class_labels.txt'}: {wrong}")
        labels[key] = label[value]
    if not images.keys() == labels.keys() == in_train.keys():
        raise DataError(
            f"{home}: images.txt, image_class_labels.txt and train_test_split.txt name different images; unpack the "
            f"data set again"
        )
    items = {key: (home / "images" / name, labels[key]) for key, name in images.items()}
    train = [item for key, item in items.items() if in_train[key]]
    test = [item for key, item in items.items() if not in_train[key]]
    keys = [path.relative_to(root).as_posix() for path, _ in train]
    return open_listed(INFO, TREATMENT, home, names, train, test, keys, INFO.split)


def _read_pairs(path: Path, files: bool = False) -> list[tuple[str, str]]:
    """Read the lines 'KEY VALUE' of a list, whose values may name files."""
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        key, _, value = line.strip().partition(" ")
        if not value:
            raise DataError(f"{path}, line {number}: not 'KEY VALUE'; unpack the data set again")
        if files:
            require_inside(value, path, number)
        pairs.append((key, value))
    return pairs
