"""miniImageNet (Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, 2016) in the layout of the field's split."""

import csv
from pathlib import Path

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.data.datasets import DataSet, Treatment
from m2sd_cli.data.listed_files import open_listed, read_lines, require_inside
from m2sd_cli.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TestTransform
from m2sd_cli.errors import DataError
from m2sd_cli.reading import quoted

INFO = DATA_SETS["miniimagenet"]
TREATMENT = Treatment(
    TestTransform(resize=92, crop=84, mean=IMAGENET_MEAN, std=IMAGENET_STD, squash=True),
    Augmentation(size=84, store=168),
)


def open_miniimagenet(root: Path) -> DataSet:
    """Read `root`/miniimagenet: images/*.jpg beside split/train.csv and split/test.csv.

    Labels follow the order in which the classes first appear in train.csv.

    Raises:
        DataError: a list or an image that it names is missing or makes no sense.
    """
    home = root / INFO.layout
    listed = {part: _read_csv(home / "split" / f"{part}.csv") for part in ("train", "test")}
    order = {name: label for label, name in enumerate(dict.fromkeys(name for _, name in listed["train"]))}
    unknown = {name for _, name in listed["test"]} - order.keys()
    if unknown:
        raise DataError(
            f"{home / 'split' / 'test.csv'}: class {quoted(min(unknown))} is not in train.csv; unpack the data set "
            f"again"
        )
    train, test = ([(home / "images" / file, order[name]) for file, name in lines] for lines in listed.values())
    # The split has the paths of another layout, in which the names of files are the same.
    sessions = [[line.rsplit("/", 1)[-1] for line in lines] for lines in INFO.split]
    return open_listed(INFO, TREATMENT, home, list(order), train, test, [path.name for path, _ in train], sessions)


def _read_csv(path: Path) -> list[tuple[str, str]]:
    """Read the columns filename and label."""
    reader = csv.DictReader(read_lines(path))
    pairs = []
    try:
        if not {"filename", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: needs the columns filename,label; unpack the data set again")
        for row in reader:
            if not row["filename"] or not row["label"]:
                raise DataError(f"{path}, line {reader.line_num}: not 'FILENAME,LABEL'; unpack the data set again")
            require_inside(row["filename"], path, reader.line_num)
            pairs.append((row["filename"], row["label"]))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    return pairs
