"""Validated settings of a measurement."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import get_info
from m2sd_cli.data.choosing import count_trained
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import choose_device, inference_precision, training_precision
from m2sd_cli.recipes import NOTHING, Recipe
from m2sd_cli.training.batches import batch_bounds

MOST_WORKERS = 8
# Random labels teach nothing, and at a usual rate the loss may diverge in thousands of steps. A step takes the same
# time at any rate.
LEARNING_RATE = 1e-6
EPOCHS = 10**6  # more than there is time for
# The settings without a recipe; the batch size is that of CIFAR-100.
USUAL: Mapping[str, Any] = {"epochs": EPOCHS, "backbone": "resnet20", "batch_size": 128}
USUAL_CLASSES, USUAL_SIZE = 60, 32


@dataclass(frozen=True)
class Schedule:
    """Length of a stage of a recipe."""

    epochs: int
    steps: int  # of all epochs


@dataclass(frozen=True)
class Settings:
    """Settings of one measurement."""

    pretrain: PretrainConfig
    distill: DistillConfig
    image_size: int  # pixels
    classes: int
    device: torch.device
    precision: str  # as asked for, which may be auto
    seconds: float  # for measuring the throughput of all workloads together
    rounds: int
    workers: int | None  # processes of the reference loop; None leaves it out
    compile: bool = False  # True if both stages are compiled first
    recipe: str | None = None  # that both stages follow
    data: str | None = None  # the data set whose treatment the random images get
    schedules: Mapping[str, Schedule] = field(default_factory=dict)  # of the stages, where there is a recipe

    @property
    def training_precision(self) -> str:
        """fp32 or bf16, in which both stages compute."""
        return training_precision(self.precision, self.device)

    @property
    def feature_precision(self) -> str:
        """fp32 or bf16, in which features are computed."""
        return inference_precision(self.precision)


def configure(
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    classes: int | None = None,
    device: str,
    precision: str,
    seconds: float,
    rounds: int,
    workers: int | None,
    compile: bool = False,
    recipe: Recipe = NOTHING,
) -> Settings:
    """Make settings of options; None stands for the recipe's value, or the usual one without a recipe.

    Raises:
        UsageError: an option makes no sense, or there is no such device.
    """
    followed = recipe.options
    info = get_info(followed.data) if followed.data is not None else None
    for option, value in (("--image-size", image_size), ("--classes", classes)):
        if info is not None and value is not None:
            raise UsageError(f"{option} {value}: {recipe.name} is for {info.name}, which says so itself; leave it out")
    defaults = dict(info.defaults if info else USUAL)
    given = {"batch_size": batch_size}
    pretrain = resolve(
        PretrainConfig,
        Sources(defaults, options=given | {"backbone": backbone, "image_size": image_size}, recipe=followed),
    )
    distill = resolve(DistillConfig, Sources(defaults, options=given, recipe=followed, init=pretrain.init))
    schedules = {}
    if info is not None:
        images = info.base * count_trained(info.images, pretrain.held_out, pretrain.images_per_class)
        for name, config in (("pretrain", pretrain), ("distill", distill)):
            epoch = len(batch_bounds(images, config.batch_size))
            schedules[name] = Schedule(config.epochs, config.epochs * epoch)
    if image_size is None:
        image_size = info.image_size if info else USUAL_SIZE
    if classes is None:
        classes = info.base if info else USUAL_CLASSES
    if classes < 2:
        raise UsageError(f"--classes {classes}: at least 2, since images of different classes are mixed")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds {seconds}: more than 0")
    if rounds < 1:
        raise UsageError(f"--rounds {rounds}: at least 1")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: at least 1")
    if workers is not None and (pretrain.auto_augment != "none" or pretrain.colour or pretrain.cutout):
        raise UsageError(
            f"--against-reference: the plain loop has no AutoAugment, colour or Cutout, as {recipe.name} has; leave it "
            f"out, or name another --recipe"
        )
    chosen = choose_device(device)
    training_precision(precision, chosen)
    endless: dict[str, Any] = {"epochs": EPOCHS, "learning_rate": LEARNING_RATE}
    return Settings(
        pretrain=replace(pretrain, **endless),
        distill=replace(distill, **endless),
        image_size=image_size,
        classes=classes,
        device=chosen,
        precision=precision,
        seconds=seconds,
        rounds=rounds,
        workers=workers,
        compile=compile,
        recipe=recipe.name,
        data=followed.data,
        schedules=schedules,
    )
