"""The data sets that come with sessions of their own, and how each is treated; knows no images and no torch."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from m2sd_cli.errors import DataError, UsageError

BUNDLED = Path(__file__).parent / "bundled"
SHOTS = 5  # images of a class that a session teaches
TEST_SHARE = 0.1  # of a base class's training images, which a simulation tests with
SIMULATED = "-simulated"


@dataclass(frozen=True)
class DataSetInfo:
    """A built-in benchmark: facts, and the settings with which it is usually trained."""

    name: str
    title: str
    base: int  # classes of session 0
    classes: int  # classes of all sessions
    way: int  # classes that a session teaches
    images: int  # for training, of each base class; a few of CUB-200's have one less
    image_size: int  # pixels
    layout: str  # the folder or file that has to be under the data root; empty if it ships in the package
    download: bool  # whether m2sd can fetch it
    defaults: dict[str, Any]  # defaults of the configuration, by its field names
    simulates: str | None = None  # the data set whose base training images are all that it has

    @property
    def sessions(self) -> int:
        """How many follow the base session."""
        return (self.classes - self.base) // self.way

    @cached_property
    def split(self) -> list[list[str]]:
        """The official sessions 1, 2, ...: the lines that name each session's shots; none if it needs no list."""
        files = sorted((BUNDLED / "splits" / self.name).glob("session-*.txt"))
        return [file.read_text(encoding="utf-8").split() for file in files]


_OFFICIAL = {
    info.name: info
    for info in (
        DataSetInfo(
            name="cifar100",
            title="CIFAR-100: 60 base classes, 8 sessions of 5 classes x 5 shots, 32 px",
            base=60,
            classes=100,
            way=5,
            images=500,
            image_size=32,
            layout="cifar-100-python",
            download=True,
            defaults={"backbone": "resnet20", "total_epochs": 200, "batch_size": 128, "held_out": 0.02},
        ),
        DataSetInfo(
            name="miniimagenet",
            title="miniImageNet: 60 base classes, 8 sessions of 5 classes x 5 shots, 84 px",
            base=60,
            classes=100,
            way=5,
            images=500,
            image_size=84,
            layout="miniimagenet",
            download=False,
            defaults={"backbone": "resnet18", "total_epochs": 200, "batch_size": 128, "held_out": 0.02},
        ),
        DataSetInfo(
            name="cub200",
            title="CUB-200-2011: 100 base classes, 10 sessions of 10 classes x 5 shots, 224 px",
            base=100,
            classes=200,
            way=10,
            images=30,
            image_size=224,
            layout="CUB_200_2011",
            download=False,
            defaults={
                "backbone": "resnet18",
                "total_epochs": 100,
                "batch_size": 128,
                "learning_rate": 0.01,
                "init": "imagenet",
                "held_out": 0.05,  # one or two of a class's 30 images
            },
        ),
        DataSetInfo(
            name="demo",
            title="Demo: 6 base classes of Fashion-MNIST, 2 sessions of 2 classes x 5 shots, 28 px, in the package",
            base=6,
            classes=10,
            way=2,
            images=300,
            image_size=28,
            layout="",
            download=False,
            # With so few images small batches and a long stage 1 learn most within the demo's few minutes.
            # Of its 1,800 images a tenth are held out, as less than 180 would tell little.
            defaults={
                "backbone": "resnet20",
                "total_epochs": 20,
                "pretrain_share": 0.6,
                "batch_size": 32,
                "held_out": 0.1,
            },
        ),
    )
}


def _simulation(info: DataSetInfo) -> DataSetInfo:
    """What `data.simulation` makes of a data set's base classes: four fifths of them are its own base classes, and it
    teaches the others in half as many sessions.
    """
    base = 4 * info.base // 5
    way = (info.base - base) // (info.sessions // 2)
    title, _, _ = info.title.partition(":")
    return replace(
        info,
        name=info.name + SIMULATED,
        title=f"{title}'s base training images alone: {base} base classes, sessions of {way} classes x {SHOTS} shots",
        base=base,
        classes=info.base,
        way=way,
        images=info.images - round(TEST_SHARE * info.images),
        simulates=info.name,
    )


BUILT_IN = _OFFICIAL | {info.name: info for info in map(_simulation, _OFFICIAL.values())}
NAMES = f"{', '.join(_OFFICIAL)}, one of these with {SIMULATED}"  # for messages

FOLDER_DEFAULTS: dict[str, Any] = {"backbone": "resnet18", "total_epochs": 100, "batch_size": 64, "held_out": 0.05}


def find_info(name: str) -> DataSetInfo | None:
    """The built-in data set of that name; None if `name` is a folder, or can only be meant as one.

    Raises:
        DataError: it is a path, and there is no such folder.
        UsageError: it is neither a known name nor a path.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if os.path.isdir(name):
        return None
    if Path(name).name != name:
        raise DataError(f"--data {name}: no such folder")
    raise UsageError(f"--data {name}: no data set of that name and no folder either; choose {NAMES}, or a folder")
