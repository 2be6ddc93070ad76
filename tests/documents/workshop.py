"""A folder to work in as the documents suppose it, and trainings that take seconds."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from m2sd_cli.benchmark.processes import MakeRun
from m2sd_cli.benchmark.report import Report
from m2sd_cli.benchmark.run import run_bench
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS
from m2sd_cli.data.cifar100 import TREATMENT
from m2sd_cli.data.datasets import DataSet, Shots, Skipped
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.protocol import Protocol
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.recipes import find_recipe, recipe_names
from tests.benchmark.small import skip_slow_parts

SIZE = 8  # of the look-alike's images, in pixels
CLOTHES = {  # folders of images of the demo, by the numbers of their classes, with the numbers of the images
    "photos": (range(6), range(12)),
    "new-clothes": (range(6, 8), range(5)),
    "labelled": (range(8), range(20, 23)),
}
WARDROBE = "wardrobe"  # a folder of images of no class
LOOSE = range(30, 33)


def fill(folder: Path) -> None:
    """Make the folders of images that the documents take for the reader's own."""
    demo = open_data("demo")
    tested = demo.test
    assert isinstance(tested, ArrayImages)
    of_class = [(tested.labels == label).nonzero().flatten().tolist() for label in range(len(demo.classes))]

    def write(path: Path, label: int, number: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tested.images[of_class[label][number]].numpy()).resize((96, 96)).save(path)

    for name, (labels, numbers) in CLOTHES.items():
        for label in labels:
            for number in numbers:
                write(folder / name / demo.classes[label] / f"{number}.png", label, number)
    for number, label in zip(LOOSE, (1, 7, 5), strict=True):
        write(folder / WARDROBE / f"{number}.png", label, number)


def small_cifar100() -> DataSet:
    """Make a look-alike with CIFAR-100's classes and sessions, and two random images of 8x8 pixels a base class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60).repeat(2)
    images = torch.randint(0, 256, (120, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    names = [f"class {number}" for number in range(100)]

    def session(number: int) -> Shots:
        first = 60 + 5 * (number - 1)
        return Shots(names[first : first + 5], ArrayImages(images[:25], torch.arange(5).repeat(5)))

    return DataSet(
        name="cifar100",
        classes=names,
        base=60,
        train=ArrayImages(images, labels),
        test=ArrayImages(images[:100], torch.arange(100)),
        sessions=8,
        session=session,
        transform=replace(TREATMENT.transform, resize=SIZE, crop=SIZE),
        augmentation=replace(TREATMENT.augmentation, size=SIZE),
        location=Path("cifar-100-python"),
    )


def measure_briefly(settings: Settings, make_run: MakeRun) -> Report:
    """Measure on small images for a moment."""
    small = replace(
        settings,
        pretrain=replace(settings.pretrain, batch_size=4, image_size=8),
        distill=replace(settings.distill, batch_size=4),
        image_size=8,
        seconds=0.1,
        rounds=1,
        workers=settings.workers and 1,
    )
    with pytest.MonkeyPatch.context() as patch:
        skip_slow_parts(patch)
        return run_bench(small, make_run)


@contextmanager
def shortened(scratch: Path, demo: bool = True) -> Iterator[None]:
    """Train for an epoch or two, and on little data: a look-alike of CIFAR-100, a twentieth of the demo.

    Args:
        scratch: a folder for short recipes.
        demo: False leaves the demo and its length as they are.
    """

    def small(
        name: str,
        data_root: Path | None = None,
        image_size: int | None = None,
        skipped: Sequence[Skipped] = (),
        protocol: Protocol | None = None,
        **folder: Any,
    ) -> DataSet:
        if name == "cifar100":
            return small_cifar100()
        data = open_data(name, data_root, image_size, skipped, protocol, **folder)
        if demo and name in ("demo", "demo-simulated"):
            assert isinstance(data.train, ArrayImages)
            few = torch.arange(0, len(data.train), 20)
            return replace(data, train=data.train.select(few, data.train.labels[few]))
        return data

    recipes = scratch / "recipes"
    recipes.mkdir(exist_ok=True)
    for name in recipe_names():
        text = re.sub(r"^epochs = \d+", "epochs = 1", find_recipe(name).text, flags=re.MULTILINE)
        (recipes / f"{name}.toml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pretrain", "recorded_data", "ablate"):
            patch.setattr(f"m2sd_cli.api.{module}.open_data", small)
        patch.setattr("m2sd_cli.recipes.FOLDER", recipes)
        patch.setattr("m2sd_cli.api.bench.run_bench", measure_briefly)
        for defaults in (DATA_SETS["cifar100"].defaults, FOLDER_DEFAULTS, *[DATA_SETS["demo"].defaults] * demo):
            patch.setitem(defaults, "total_epochs", 2)
        patch.setitem(FOLDER_DEFAULTS, "backbone", "resnet20")
        yield
