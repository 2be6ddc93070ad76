"""The expected course of stages that have not begun, by the time of a few steps that leave nothing behind."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final

import torch
from torch import nn

from m2sd_cli import progress
from m2sd_cli.config.files import OptionsFile
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import Config, DistillConfig, PretrainConfig
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.errors import M2sdError
from m2sd_cli.method.network import Network
from m2sd_cli.reading import counted
from m2sd_cli.recipes import Recipe
from m2sd_cli.training.batches import batch_bounds
from m2sd_cli.training.determinism import deterministic as deterministic_algorithms
from m2sd_cli.training.distill import (
    build_enhancement,
    distill_module,
    distill_objective,
    loss_weights,
)
from m2sd_cli.training.epochs import HELD_OUT_SHARE, peak_memory, reset_peak_memory
from m2sd_cli.training.fitting import steps_explained
from m2sd_cli.training.job import Job
from m2sd_cli.training.loop import Inputs, Objective, Training
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from m2sd_cli.training.time_budget import require_warm, too_little_time

ENDLESS = 10**6  # epochs, of which as many steps are taken as the measurement wants
WORTH: Final = 10**7  # pixels over all epochs of stage 1; one of fewer is over in half a minute
MOMENT: Final = 0.5  # seconds of steps that tell roughly
FEW, FEW_PIXELS = 8, 2**18  # images of a step on a CPU that tells roughly, the least and the most
_untold: ContextVar[bool] = ContextVar("untold", default=False)


@dataclass(frozen=True)
class StagePlan:
    """The expected course of a stage."""

    stage: str
    epochs: int
    epoch_steps: int
    seconds: float  # of the training alone
    peak_memory: int | None  # bytes, as in the log; of no training, or where nobody tells, None


def expected_distill(job: Job[PretrainConfig], defaults: Mapping[str, Any], followed: Recipe) -> DistillConfig:
    """Resolve the options that stage 2 will have after stage 1 unless it is given others.

    Args:
        defaults: of the data set.
        followed: the recipe of stage 1.

    Raises:
        UsageError: an option in the recipe or file makes no sense.
    """
    inherited = OptionsFile(None, job.options_file)
    return resolve(DistillConfig, Sources(defaults, None, {}, followed.options, inherited, job.config.init))


def measure_distill(
    network: Network,
    images: TrainingImages,
    job: Job[DistillConfig],
    batch_size: int | None = None,
    enough: float | None = None,
) -> StagePlan:
    """Time a few steps of stage 2, see `measure`."""
    config = job.config
    weights = loss_weights(config)
    enhancement = build_enhancement(network, config, weights)
    module = distill_module(network, enhancement)
    objective = distill_objective(network, enhancement, config, weights)
    return measure(job.stage, module, objective, images, job, batch_size, enough)


def measure(
    stage: str,
    module: nn.Module,
    objective: Objective,
    images: TrainingImages,
    job: Job[Config],
    batch_size: int | None = None,
    enough: float | None = None,
) -> StagePlan:
    """Time a few steps on a few images.

    Args:
        images: at least one batch.
        batch_size: of the steps; None for that of the training. A smaller one is taken to need as long an image.
        enough: seconds of steps, see `Training.step_seconds`.

    Raises:
        M2sdError: the steps cannot be taken, or a budget of time allows no epoch.
    """
    data, config, execution = job.data, job.config, job.execution
    bounds = batch_bounds(len(data.train), config.batch_size)
    if not config.epochs:
        return StagePlan(stage, 0, len(bounds), 0.0, None)
    steps = float(len(bounds))
    if batch_size is not None and batch_size < config.batch_size:
        steps = len(data.train) / batch_size
        config = replace(config, batch_size=batch_size)
    with (
        steps_explained(stage, config, execution),
        freed_memory_kept(execution.device),
        deterministic_algorithms(execution.deterministic),
    ):
        reset_peak_memory(execution.device)
        training = Training(
            stage,
            module,
            objective,
            Inputs(images, data.augmentation, data.transform),
            replace(config, epochs=ENDLESS),
            execution,
            _save_nothing,
        )
        share = HELD_OUT_SHARE if data.held_out is not None else 0.0
        epoch_seconds = training.step_seconds(enough) * steps * (1 + share)
    epochs = config.epochs
    if execution.time_budget is not None:
        epochs = int(execution.time_budget / epoch_seconds)
        if not epochs:
            raise too_little_time(execution.time_budget, epoch_seconds)
        require_warm(epochs, job.config.warmup_epochs)
    return StagePlan(stage, epochs, len(bounds), epochs * epoch_seconds, peak_memory(execution.device))


@contextmanager
def untold() -> Iterator[None]:
    """Have `tell_both` say nothing inside: the command has a stage 2 of its own, or several."""
    token = _untold.set(True)
    try:
        yield
    finally:
        _untold.reset(token)


def tell_both(job: Job[PretrainConfig], defaults: Mapping[str, Any], followed: Recipe) -> None:
    """Say roughly how long stage 1 and the stage 2 after it take, where somebody listens and stage 1 takes a while.

    Noise and random weights do for this: the time of a step depends on neither. One process alone tells, and none that
    compiles its network, which takes longer than the steps.

    Args:
        defaults: of the data set.
        followed: the recipe of stage 1.
    """
    data, config, asked = job.data, job.config, job.execution
    small = config.epochs * len(data.train) * data.augmentation.size**2 < WORTH
    alone = asked.group.size == 1 and not asked.compile
    if _untold.get() or small or data.base < 2 or not alone or not isfinite(progress.snapshot_interval()):
        return
    try:
        second = expected_distill(job, defaults, followed)
        execution = replace(asked, time_budget=None)
        networks = [build_network(config, data.base, data.transform.crop) for _ in range(2)]
        then = Job("distill", job.run, data, job.classes, second, execution)
        size = _small_batch(job)
        one = measure(
            job.stage,
            networks[0],
            pretrain_objective(networks[0], job.config),
            _noise(job, size),
            replace(job, execution=execution),
            size,
            MOMENT,
        )
        size = _small_batch(then)
        two = measure_distill(networks[1], _noise(then, size), then, size, MOMENT)
    except M2sdError as error:
        progress.say(f"{job.stage}: how long it and distill take is not known: {error}")
        return
    first = progress.duration(one.seconds if asked.time_budget is None else asked.time_budget)
    after = f", distill after it about {progress.duration(two.seconds)} with its {counted(second.epochs, 'epoch')}"
    progress.say(f"{job.stage} takes about {first}{after if second.epochs else ''}")


def _small_batch(job: Job[Config]) -> int:
    """Choose the images of a step that tells roughly: on a CPU few, on a device that computes them at once all."""
    most = job.config.batch_size
    if job.execution.device.type == "cpu":
        most = min(most, max(FEW, FEW_PIXELS // job.data.augmentation.size**2))
    return max(2, min(most, len(job.data.train)))


def _noise(job: Job[Config], batch_size: int) -> TrainingImages:
    """Make random images of the size and with labels of those to train on, two batches if there are as many."""
    data = job.data
    side = data.augmentation.store or data.augmentation.size
    count = min(len(data.train), 2 * batch_size)
    pixels = torch.randint(256, (count, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = data.train.labels[torch.linspace(0, len(data.train) - 1, count).long()]
    return TrainingImages(pixels, torch.ones(count), labels)


def _save_nothing(*_: object) -> None:
    """Save no state of a training that is only timed."""
