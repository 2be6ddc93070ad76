"""CIFAR-100 (Krizhevsky, 2009) with the official split of the field; torchvision reads and downloads the files."""

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import BUNDLED, DATA_SETS
from m2sd_cli.data.datasets import DataSet, Shots, Treatment
from m2sd_cli.data.decoded import LABELS, Request, load_or_decode
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DataError, os_errors_as
from m2sd_cli.pairing import import_torchvision
from m2sd_cli.reading import open_regular

INFO = DATA_SETS["cifar100"]
TREATMENT = Treatment(
    TestTransform(resize=32, crop=32, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
    Augmentation(size=32, padding=4),
)
IMAGES = {"training": 50_000, "test": 10_000}
FILES = {"training": "train", "test": "test"}  # of INFO.layout


def open_cifar100(root: Path) -> DataSet:
    """Read `root`/cifar-100-python from the cache of decoded images, which is filled first.

    Once it is filled, a command neither unpickles the files nor imports torchvision, which takes seconds.

    Raises:
        DataError: a file is missing, cannot be read or differs from the published one; or the cache cannot be written.
    """
    classes = class_names()
    train, test = _images(root, "training"), _images(root, "test")
    indices = [torch.tensor([int(line) for line in lines]) for lines in INFO.split]
    # All sessions are selected here, so that no training holds all images of later classes for their few shots.
    sessions = [Shots.select(train, each, classes) for each in indices]
    in_memory = test.select(torch.arange(len(test)), test.labels)
    return DataSet.from_info(
        INFO, TREATMENT, classes, train, in_memory, lambda number: sessions[number - 1], root / INFO.layout
    )


def class_names() -> list[str]:
    """Read the names of all classes in the order of their labels, as the published files have them."""
    return (BUNDLED / "splits" / INFO.name / "classes.txt").read_text(encoding="utf-8").split()


def _images(root: Path, use: Literal["training", "test"]) -> ArrayImages:
    """Load the images of a file as the pages of an entry of the cache; a selection of them is a copy."""
    path = root / INFO.layout / FILES[use]
    with os_errors_as(DataError, f"{path}: cannot be read"), open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    request = Request(use, INFO.image_size, {"file": FILES[use]}, [digest], IMAGES[use], LABELS)
    entry = load_or_decode(request, lambda: _published(root, use))
    return ArrayImages(entry.images.tensor, entry.values)


def _published(root: Path, use: Literal["training", "test"]) -> Generator[tuple[Tensor, float], None, None]:
    """Yield every image and its label. Torchvision compares the files with their published MD5s first."""
    datasets = import_torchvision("datasets")
    try:
        published = datasets.CIFAR100(str(root), train=use == "training")
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror or error})") from None
    except RuntimeError:
        raise DataError(
            f"{root / INFO.layout}: not the published CIFAR-100 files (MD5); remove it and run "
            f"'m2sd data download cifar100'"
        ) from None
    yield from zip(torch.from_numpy(np.asarray(published.data)), published.targets, strict=True)


def download_cifar100(root: Path) -> None:
    """Fetch the official archive into `root` if it is not there; torchvision checks its published MD5.

    One process at a time fetches it: two would write the same file.

    Raises:
        DataError: the download failed.
        M2sdError: torchvision cannot be imported.
    """
    datasets = import_torchvision("datasets")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{INFO.name}.lock"):
            datasets.CIFAR100(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"cifar100 could not be downloaded into {root} ({error}); "
            f"put the folder {INFO.layout} there yourself, or name where it is with --data-root"
        ) from None
