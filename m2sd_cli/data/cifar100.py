"""CIFAR-100 (Krizhevsky, 2009) with the official split of the field; torchvision reads and downloads the files."""

from pathlib import Path

import numpy as np
import torch

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import BUILT_IN
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.sources import from_numpy
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DataError

INFO = BUILT_IN["cifar100"]
TRANSFORM = TestTransform(resize=32, crop=32, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
AUGMENTATION = Augmentation(size=32, padding=4)


def open_cifar100(root: Path) -> DataSet:
    """Read `root`/cifar-100-python, whose MD5s torchvision checks before it opens a file.

    Raises:
        DataError: a file is missing, cannot be read or differs from the published one.
    """
    from torchvision.datasets import CIFAR100

    try:
        train, test = CIFAR100(str(root), train=True), CIFAR100(str(root), train=False)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror or error})") from None
    except RuntimeError:
        raise DataError(
            f"{root / INFO.layout}: not the published CIFAR-100 files (MD5); remove it and run "
            f"'m2sd data download cifar100'"
        ) from None
    everything = from_numpy(np.asarray(train.data), train.targets)
    base = torch.nonzero(everything.labels < INFO.base).flatten()

    def shots(lines: list[str]) -> Shots:
        indices = torch.tensor([int(line) for line in lines])
        labels = everything.labels[indices]
        taught = torch.unique(labels)
        chosen = everything.select(indices, torch.searchsorted(taught, labels))
        return Shots([train.classes[label] for label in taught.tolist()], chosen)

    # All of them now, so that no training holds the images of later classes for the sake of a few shots.
    sessions = [shots(lines) for lines in INFO.split]
    return DataSet(
        name=INFO.name,
        classes=list(train.classes),
        base=INFO.base,
        train=everything.select(base, everything.labels[base]),
        test=from_numpy(np.asarray(test.data), test.targets),
        sessions=len(sessions),
        session=lambda number: sessions[number - 1],
        transform=TRANSFORM,
        augmentation=AUGMENTATION,
        location=root / INFO.layout,
    )


def download_cifar100(root: Path) -> None:
    """Fetch the official archive into `root`; torchvision checks its published MD5.

    Raises:
        DataError: the download failed.
    """
    from torchvision.datasets import CIFAR100

    root.mkdir(parents=True, exist_ok=True)
    try:
        CIFAR100(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"cifar100 could not be downloaded into {root} ({error}); "
            f"put the folder {INFO.layout} there yourself, or name where it is with --data-root"
        ) from None
