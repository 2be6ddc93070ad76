"""A data set of somebody else's: six plain colours with noise, of which four are base classes."""

from pathlib import Path

import torch

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.catalogue import DataSetInfo
from m2sd_cli.data.datasets import DataSet, Shots, Treatment
from m2sd_cli.data.sources import ArrayImages
from m2sd_cli.data.transforms import TestTransform

INFO = DataSetInfo(
    name="toy",
    title="Toy: 4 base classes of colours, 2 sessions of 1 class x 5 shots, 8 px",
    base=4,
    classes=6,
    way=1,
    images=8,
    image_size=8,
    builder="tests.data.toy:open_toy",
    defaults={"backbone": "resnet20", "total_epochs": 2, "batch_size": 8},
)
TREATMENT = Treatment(TestTransform(resize=8, crop=8, mean=(0.5,) * 3, std=(0.5,) * 3), Augmentation(size=8, padding=1))


def draw(images_per_class: int, seed: int) -> ArrayImages:
    """Draw images of every class."""
    labels = torch.arange(INFO.classes).repeat_interleave(images_per_class)
    noise = torch.randint(0, 64, (len(labels), 8, 8, 3), generator=torch.Generator().manual_seed(seed))
    colours = torch.tensor([[0, 0, 180], [0, 180, 0], [180, 0, 0], [180, 180, 0], [0, 180, 180], [180, 0, 180]])
    return ArrayImages((colours[labels][:, None, None, :] + noise).to(torch.uint8), labels)


def open_toy() -> DataSet:
    """Open it; it ships with the package, so that there is no folder to be given."""
    classes = [f"colour {number}" for number in range(INFO.classes)]
    train = draw(INFO.images, seed=0)

    def session(number: int) -> Shots:
        of_class = (train.labels == INFO.base + number - 1).nonzero().flatten()
        return Shots.select(train, of_class[:5], classes)

    return DataSet.from_info(INFO, TREATMENT, classes, train, draw(4, seed=1), session, Path(__file__).parent)
