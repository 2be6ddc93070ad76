"""The table of data sets that come with sessions of their own; this module reads no image and imports no torch."""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.paths import refuse_address
from m2sd_cli.registry import OTHERS, Builder, Registry

BUNDLED = Path(__file__).parent / "bundled"
SHOTS = 5  # images of a class that a session teaches
TEST_SHARE = 0.1  # of a base class's training images, which a simulation tests with
SIMULATED = "-simulated"
# Stage 2 has clean cross-entropy and no feature enhancement, by measurement: recipes/README.md, "Stage 2 on a folder".
FOLDER_DEFAULTS: dict[str, Any] = {
    "backbone": "resnet18",
    "total_epochs": 100,
    "batch_size": 64,
    "held_out": 0.05,
    "distill": {"clean_weight": 1.0, "kd_weight": 0.0, "attention_weight": 0.0, "teacher_weight": 0.0},
}


@dataclass(frozen=True)
class DataSetInfo:
    """A benchmark: its facts, the functions that open and download it, and the settings that it is trained with."""

    name: str
    title: str
    base: int  # classes of session 0
    classes: int  # classes of all sessions
    way: int  # classes that a session teaches
    images: int  # for training, of each base class; a few of CUB-200's have one less
    image_size: int  # pixels
    builder: Builder  # of the folder in which `layout` lies, or of nothing if it ships in a package; returns a DataSet
    treatment: str | None = None  # "module:attribute", a datasets.Treatment that `bench` takes; None: by `image_size`
    layout: str = ""  # the folder or file that has to be under the data root; empty if it ships in a package
    download: Builder | None = None  # fetches `layout` into a folder; None if that has to be done by hand
    defaults: dict[str, Any] = field(default_factory=FOLDER_DEFAULTS.copy)  # of the configuration, by its field names
    simulates: str | None = None  # the data set whose base training images are its only images
    shots: int = SHOTS  # of each class that a session teaches

    @property
    def sessions(self) -> int:
        """The number of sessions after the base session, of which the last one may be smaller than the others."""
        return -(-(self.classes - self.base) // self.way)

    @cached_property
    def split(self) -> list[list[str]]:
        """The official sessions 1, 2, ...: the lines that name each session's shots; none if it needs no list."""
        files = sorted((BUNDLED / "splits" / self.name).glob("session-*.txt"))
        return [file.read_text(encoding="utf-8").split() for file in files]


_BUILT_IN = (
    DataSetInfo(
        name="cifar100",
        title="CIFAR-100: 60 base classes, 8 sessions of 5 classes x 5 shots, 32 px",
        base=60,
        classes=100,
        way=5,
        images=500,
        image_size=32,
        builder="m2sd_cli.data.cifar100:open_cifar100",
        treatment="m2sd_cli.data.cifar100:TREATMENT",
        layout="cifar-100-python",
        download="m2sd_cli.data.cifar100:download_cifar100",
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
        builder="m2sd_cli.data.miniimagenet:open_miniimagenet",
        treatment="m2sd_cli.data.miniimagenet:TREATMENT",
        layout="miniimagenet",
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
        builder="m2sd_cli.data.cub200:open_cub200",
        treatment="m2sd_cli.data.cub200:TREATMENT",
        layout="CUB_200_2011",
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
        builder="m2sd_cli.data.demo:open_demo",
        treatment="m2sd_cli.data.demo:TREATMENT",
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
DATA_SETS: Final = Registry("--data", "m2sd.data_sets", DataSetInfo, {info.name: info for info in _BUILT_IN})


def register_data_set(info: DataSetInfo) -> None:
    """Add a data set, so that `--data NAME` and `pretrain(NAME)` know it, and increment its official sessions.

    Args:
        info: the entry. Its `builder` returns a `m2sd_cli.data.datasets.DataSet`, see `DataSet.from_info`.

    Raises:
        UsageError: the name is taken or not well-formed.
    """
    DATA_SETS.register(info.name, info, info.builder)


def get_info(name: str) -> DataSetInfo | None:
    """Look up a data set of the table, or the simulation of one, by name; None if there is none."""
    if name in DATA_SETS:
        return DATA_SETS[name]
    original = name.removesuffix(SIMULATED)
    return simulation_of(DATA_SETS[original]) if original != name and original in DATA_SETS else None


def all_infos() -> dict[str, DataSetInfo]:
    """Return the data sets of the table, and then their simulations, under their names."""
    originals = DATA_SETS.loadable().values()
    return {info.name: info for info in (*originals, *map(simulation_of, originals)) if info}


def listed_names() -> str:
    """Enumerate the names for messages and help pages."""
    return f"{', '.join(DATA_SETS.names())}, one of these with {SIMULATED}"


def simulation_of(info: DataSetInfo) -> DataSetInfo | None:
    """Describe the simulation of a data set, which has its base classes alone; None if these are too few.

    Four fifths of them are the simulation's base classes. It teaches the others in half as many sessions.
    """
    base = 4 * info.base // 5
    way = (info.base - base) // max(1, info.sessions // 2)
    if not base or not way:
        return None
    title, _, _ = info.title.partition(":")
    played = f"{base} base classes, sessions of {way} classes x {info.shots} shots"
    return replace(
        info,
        name=info.name + SIMULATED,
        title=f"{title}'s base training images alone: {played}",
        base=base,
        classes=info.base,
        way=way,
        images=info.images - round(TEST_SHARE * info.images),
        simulates=info.name,
    )


def find_info(name: str, source: str = "--data ") -> DataSetInfo | None:
    """Look up the data set of that name; None if `name` is a folder.

    Args:
        name: of a data set, or the path of a folder.
        source: the option that gave it, for messages; empty for an argument.

    Raises:
        DataError: it is a path, and there is no such folder.
        UsageError: it is neither a known name nor a path.
    """
    info = get_info(name)
    if info is not None or os.path.isdir(name):
        return info
    refuse_address(name, source.strip())
    if Path(name).name != name:
        raise DataError(f"{source}{name}: no such folder")
    raise UsageError(
        f"{source}{name}: no data set of that name and no folder either; choose {listed_names()}, or a folder; {OTHERS}"
    )
