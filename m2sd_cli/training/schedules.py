"""The learning rate over the steps of a training: a warm-up, then a schedule of the table SCHEDULES."""

import math

from m2sd_cli.config.stages import DistillConfig, PretrainConfig, TrainingConfig, milestones
from m2sd_cli.registry import load
from m2sd_cli.tables import SCHEDULES


def learning_rate(config: PretrainConfig | DistillConfig, step: int, epoch_steps: int) -> float:
    """Compute the learning rate of a step.

    It rises linearly over the steps of the warm-up, and the schedule decides about the others.

    Args:
        config: the configuration of the stage.
        step: counted over all epochs from 0.
        epoch_steps: the steps of an epoch.
    """
    steps, warm_up = config.epochs * epoch_steps, round(config.warmup_epochs * epoch_steps)
    if step < warm_up:
        return config.learning_rate * (step + 1) / (warm_up + 1)
    factor: float = load(SCHEDULES[config.schedule].builder)(
        config, step - warm_up, steps - warm_up, step // epoch_steps
    )
    return config.learning_rate * factor


def cosine(_config: TrainingConfig, step: int, steps: int, _epoch: int) -> float:
    """Compute half a cosine, from 1 at step 0 to 0 after the last, without restarts (Loshchilov & Hutter, 2017)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def multistep(config: TrainingConfig, _step: int, _steps: int, epoch: int) -> float:
    """Compute gamma^n, with n milestones behind; epochs count from 0, and include those of the warm-up."""
    return config.gamma ** sum(epoch >= milestone for milestone in milestones(config))


def constant(_config: TrainingConfig, _step: int, _steps: int, _epoch: int) -> float:
    """Return 1."""
    return 1.0
