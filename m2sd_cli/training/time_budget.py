"""The epochs that a budget of time allows, by the time of a training's first steps."""

import time
from dataclasses import replace

import torch

from m2sd_cli import progress
from m2sd_cli.errors import UsageError
from m2sd_cli.reading import counted
from m2sd_cli.training.epochs import HELD_OUT_SHARE
from m2sd_cli.training.loop import Training


def fit_epochs(training: Training, seconds: float, began: float) -> int:
    """Give a training as many epochs as its time allows, by the time of a few steps that are taken back.

    Args:
        training: that has not begun.
        seconds: for the training.
        began: the beginning of these seconds, by time.monotonic().

    Returns:
        The number of epochs.

    Raises:
        UsageError: one epoch takes longer, or the warm-up does.
    """
    epoch_seconds = training.step_seconds() * len(training.bounds) * (1 + HELD_OUT_SHARE)
    left = seconds - (time.monotonic() - began)
    # Processes measure different times, and have to choose the same number: that of the main process.
    choice = torch.tensor(left / epoch_seconds if training.group.is_main else 0.0, device=training.device)
    training.group.all_reduce(choice)
    epochs = int(choice)
    if epochs < 1:
        raise too_little_time(seconds, epoch_seconds)
    require_warm(epochs, training.config.warmup_epochs)
    training.config = replace(training.config, epochs=epochs)
    training.steps = epochs * len(training.bounds)
    progress.say(
        f"{training.stage}: --time-budget allows {counted(epochs, 'epoch')}; --epochs {epochs} repeats the training"
    )
    return epochs


def require_warm(epochs: int, warmup_epochs: float) -> None:
    """Refuse a warm-up that takes all epochs of a budget of time.

    Raises:
        UsageError: it does.
    """
    if warmup_epochs >= epochs:
        raise UsageError(
            f"--time-budget: it allows {counted(epochs, 'epoch')}, and --warmup-epochs {warmup_epochs:g} take all of "
            f"them; allow more time, or give fewer"
        )


def too_little_time(seconds: float, epoch_seconds: float) -> UsageError:
    """Make the error of a budget of time in which no epoch fits."""
    return UsageError(
        f"--time-budget: an epoch takes about {progress.duration(epoch_seconds)}, and {seconds:.0f} s are too "
        f"little for it; allow more time, or train on fewer images with --images-per-class"
    )
