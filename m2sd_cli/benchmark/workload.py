"""Workloads on random images: the training of both stages, and features, as the commands compute them."""

from dataclasses import replace

import torch
from torch import nn

from m2sd_cli.benchmark.machine import synchronise
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data import cifar100
from m2sd_cli.data.catalogue import get_info
from m2sd_cli.data.datasets import Treatment
from m2sd_cli.data.folders import usual_treatment
from m2sd_cli.data.locate import load_treatment
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.inference.features import FEATURE_BATCH, embed
from m2sd_cli.training.distill import (
    build_enhancement,
    distill_module,
    distill_objective,
    loss_weights,
)
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.loop import Inputs, Objective, Training
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from m2sd_cli.training.stopping import StopRequest

MOST_IMAGES = 30_000  # as many as CIFAR-100's base classes have
MOST_BYTES = 2**28


def treatment(size: int, data: str | None = None) -> Treatment:
    """Choose the treatment of a data set with images of a size; else CIFAR-100's up to 32 pixels, above a folder's."""
    info = get_info(data) if data is not None else None
    if info is not None and info.treatment is not None and info.image_size == size:
        return load_treatment(info.treatment)
    if size <= cifar100.INFO.image_size:
        transform, augmentation = cifar100.TREATMENT
        return Treatment(replace(transform, resize=size, crop=size), replace(augmentation, size=size))
    return usual_treatment(size)


def random_images(settings: Settings) -> TrainingImages:
    """Make noise under random labels, in whole batches: at most MOST_IMAGES images, and about MOST_BYTES."""
    _, augmentation = treatment(settings.image_size, settings.data)
    side, batch = augmentation.store or augmentation.size, settings.pretrain.batch_size
    count = max(batch, min(MOST_IMAGES, MOST_BYTES // (3 * side * side)) // batch * batch)
    generator = torch.Generator().manual_seed(settings.pretrain.seed)
    images = torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    return TrainingImages(images, torch.ones(count), torch.randint(0, settings.classes, (count,), generator=generator))


class _UntilStep(StopRequest):
    """Request that ends a training after step `last`."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training
        self.last = 0

    @property
    def wanted(self) -> bool:
        """True if step `last` has been done."""
        return self._training.position.step >= self.last


class Stage:
    """Stage as a workload, in the training loop of the commands; nothing is saved."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        objective: Objective,
        config: PretrainConfig | DistillConfig,
        data: TrainingImages,
        settings: Settings,
    ) -> None:
        transform, augmentation = treatment(settings.image_size, settings.data)
        self.images = config.batch_size
        self._device = settings.device
        execution = Execution(
            settings.device, settings.training_precision, save_every=float("inf"), compile=settings.compile
        )
        self._training = Training(
            stage=name,
            module=module,
            objective=objective,
            inputs=Inputs(data, augmentation, transform),
            config=config,
            execution=execution,
            save=lambda _position, _tensors: None,
        )
        self._stop = _UntilStep(self._training)

    def prepare(self, steps: int) -> None:
        """Do nothing, see Workload."""

    def run(self, steps: int) -> None:
        """Do a number of steps, see Workload."""
        self._stop.last = self._training.position.step + steps
        self._training.run(self._stop)
        synchronise(self._device)

    def close(self) -> None:
        """Do nothing, see Workload."""


def pretrain_stage(settings: Settings, data: TrainingImages) -> Stage:
    """Make the workload of stage 1."""
    network = build_network(settings.pretrain, settings.classes, settings.image_size)
    objective = pretrain_objective(network, settings.pretrain)
    return Stage("pretrain", network, objective, settings.pretrain, data, settings)


def distill_stage(settings: Settings, data: TrainingImages) -> Stage:
    """Make the workload of stage 2, with a network of random weights."""
    config = settings.distill
    network, weights = build_network(settings.pretrain, settings.classes, settings.image_size), loss_weights(config)
    enhancement = build_enhancement(network, config, weights)
    objective = distill_objective(network, enhancement, config, weights)
    return Stage("distill", distill_module(network, enhancement), objective, config, data, settings)


class FeatureExtraction:
    """Extraction of the features of one batch again and again, in the way of increment, evaluate and predict."""

    def __init__(self, settings: Settings) -> None:
        size = settings.image_size
        self.images = FEATURE_BATCH
        self._settings = settings
        transform, _ = treatment(size, settings.data)
        self._transform = replace(transform, views=settings.distill.views)
        backbone = build_network(settings.pretrain, settings.classes, settings.image_size).backbone.eval()
        self._backbone = backbone.to(settings.device).to(memory_format=torch.channels_last).for_inference()
        generator = torch.Generator().manual_seed(settings.pretrain.seed)
        pixels = torch.randint(0, 256, (FEATURE_BATCH, size, size, 3), generator=generator, dtype=torch.uint8)
        self._pixels = pixels.permute(0, 3, 1, 2)

    def prepare(self, steps: int) -> None:
        """Do nothing, see Workload."""

    def run(self, steps: int) -> None:
        """Do a number of steps, see Workload."""
        for _ in range(steps):
            embed(self._backbone, self._pixels, self._transform, self._settings.feature_precision)
        synchronise(self._settings.device)

    def close(self) -> None:
        """Do nothing, see Workload."""
