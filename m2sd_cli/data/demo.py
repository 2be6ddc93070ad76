"""The bundled demo: part of Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017; MIT), as one sheet of images a class."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import BUNDLED, DATA_SETS
from m2sd_cli.data.datasets import DataSet, Shots, Treatment
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.data.transforms import TestTransform

INFO = DATA_SETS["demo"]
HOME = BUNDLED / "demo"
SIDE = INFO.image_size
# Mean and deviation of Fashion-MNIST's training pixels, the same for the three equal channels.
TREATMENT = Treatment(
    TestTransform(resize=SIDE, crop=SIDE, mean=(0.2860,) * 3, std=(0.3530,) * 3), Augmentation(size=SIDE, padding=2)
)


def open_demo() -> DataSet:
    """Open the demo: six base classes, and two sessions of two classes with five shots each."""
    classes: list[str] = json.loads((HOME / "classes.json").read_text(encoding="utf-8"))
    train, test = _read_sheets("train"), _read_sheets("test")

    def session(number: int) -> Shots:
        first = INFO.base + INFO.way * (number - 1)
        return Shots.select(train, (train.labels >= first) & (train.labels < first + INFO.way), classes)

    return DataSet.from_info(INFO, TREATMENT, classes, train, test, session, HOME)


def _read_sheets(part: str) -> ArrayImages:
    columns = [_read_sheet(path) for path in sorted(HOME.glob(f"*.{part}.png"))]
    labels = [torch.full((len(column),), label) for label, column in enumerate(columns)]
    return ArrayImages(torch.cat(columns), torch.cat(labels))


def _read_sheet(path: Path) -> Tensor:
    """Read a grey column of square images as (N, SIDE, SIDE, 3) uint8."""
    with Image.open(path) as sheet:
        grey = torch.from_numpy(np.array(sheet, dtype=np.uint8))
    return grey.view(-1, SIDE, SIDE, 1).expand(-1, -1, -1, 3).contiguous()
