"""The bundled demo: part of Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017; MIT), as one sheet of pictures a class."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import BUILT_IN, BUNDLED
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.data.transforms import TestTransform

INFO = BUILT_IN["demo"]
HOME = BUNDLED / "demo"
SIDE = INFO.image_size
# Mean and deviation of Fashion-MNIST's training pixels, the same for the three equal channels.
TRANSFORM = TestTransform(resize=SIDE, crop=SIDE, mean=(0.2860,) * 3, std=(0.3530,) * 3)
AUGMENTATION = Augmentation(size=SIDE, padding=2)


def open_demo() -> DataSet:
    """Six base classes, and two sessions of two classes with five shots each."""
    classes: list[str] = json.loads((HOME / "classes.json").read_text(encoding="utf-8"))
    train, test = _sheets("train"), _sheets("test")

    def session(number: int) -> Shots:
        first = INFO.base + INFO.way * (number - 1)
        taught = (train.labels >= first) & (train.labels < first + INFO.way)
        return Shots(classes[first : first + INFO.way], train.select(taught, train.labels[taught] - first))

    base = train.labels < INFO.base
    return DataSet(
        name=INFO.name,
        classes=classes,
        base=INFO.base,
        train=train.select(base, train.labels[base]),
        test=test,
        sessions=INFO.sessions,
        session=session,
        transform=TRANSFORM,
        augmentation=AUGMENTATION,
        location=HOME,
    )


def _sheets(part: str) -> ArrayImages:
    columns = [_sheet(path) for path in sorted(HOME.glob(f"*.{part}.png"))]
    labels = [torch.full((len(column),), label) for label, column in enumerate(columns)]
    return ArrayImages(torch.cat(columns), torch.cat(labels))


def _sheet(path: Path) -> torch.Tensor:
    """A grey column of square pictures as (N, SIDE, SIDE, 3) uint8."""
    with Image.open(path) as sheet:
        grey = torch.from_numpy(np.array(sheet, dtype=np.uint8))
    return grey.view(-1, SIDE, SIDE, 1).expand(-1, -1, -1, 3).contiguous()
