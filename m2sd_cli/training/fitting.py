"""The training of a job: images, resuming, a budget of time, listeners, and the errors of torch explained."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import nn

from m2sd_cli import progress
from m2sd_cli.config.stages import Config, DistillConfig, PretrainConfig
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.errors import DamagedError, TrainingError
from m2sd_cli.inference.features import FEATURE_BATCH, held_out_sample
from m2sd_cli.runs.manifest import TrainingState
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.compilation import compilation_failed, not_compiled
from m2sd_cli.training.determinism import REPEATABLE, WORKSPACE, is_not_deterministic
from m2sd_cli.training.epochs import (
    EpochObserver,
    HeldOutAccuracy,
    Listener,
    LogListener,
    reset_peak_memory,
    tensorboard_listener,
)
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.job import Fitted, Job, Position
from m2sd_cli.training.loop import Inputs, Objective, Training
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.stopping import StopRequest
from m2sd_cli.training.time_budget import fit_epochs


@contextmanager
def steps_explained(stage: str, config: PretrainConfig | DistillConfig, execution: Execution) -> Iterator[None]:
    """Turn errors of torch in training steps into errors that name an option.

    Raises:
        TrainingError: torch lacks memory, a compiler or an algorithm.
    """
    try:
        yield
    except RuntimeError as error:
        # Of a CPU's memory torch says so in a message alone.
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise TrainingError(
                f"{stage}: the memory of {execution.device} is too small for batches of {config.batch_size} images; "
                f"lower --batch-size"
            ) from None
        if is_not_deterministic(error):
            if WORKSPACE in str(error):
                raise TrainingError(
                    f"--deterministic: cuBLAS has begun in this process without it; begin with {WORKSPACE}="
                    f"{REPEATABLE[0]} in the environment"
                ) from None
            raise TrainingError(f"--deterministic: {str(error).split(',')[0]}; begin without it") from None
        if not compilation_failed(error):
            raise
        raise not_compiled(error) from None


def fit(job: Job[Config], module: nn.Module, objective: Objective) -> Fitted[Config] | None:
    """Train to the last epoch, or until a stop is requested.

    Returns:
        None if the time limit ended the training, after the state was saved.

    Raises:
        DataError: an image for training or held out cannot be read.
        InterruptedTrainingError: a signal ended the training, after the state was saved.
        RunError: the state to resume from belongs to other images or another stage 1.
        DamagedError: the state to resume from is none of this training.
        TrainingError: the loss is not finite, or torch lacks memory, a compiler or an algorithm.
    """
    data, execution = job.data, job.execution
    began = time.monotonic()
    # The time limit runs from here on, since a cluster counts the decoding of images, too.
    stop = StopRequest(execution.stop_after)
    with stop.on_signals(), freed_memory_kept(execution.device):
        with execution.group.local_main_first():
            held_out = None
            if data.held_out is not None and len(data.held_out):
                # Held-out images are used after an epoch; an unreadable one is reported before the first.
                held_out = held_out_sample(data.held_out)
                held_out.for_testing(data.transform, FEATURE_BATCH)
            images = data.train.for_training(data.augmentation)
        inputs = Inputs(images, data.augmentation, data.transform)
        reset_peak_memory(execution.device)
        with steps_explained(job.stage, job.config, execution):
            training = Training(job.stage, module, objective, inputs, job.config, execution, job.saver())
        if job.state is not None:
            _resume(training, job, job.state)
            if execution.time_budget is not None:
                progress.say(f"{job.stage}: the budget of time allowed {job.config.epochs} epochs when it began")
        elif execution.time_budget is not None:
            with steps_explained(job.stage, job.config, execution):
                epochs = fit_epochs(training, execution.time_budget, began)
            job = replace(job, config=replace(job.config, epochs=epochs))
            training.save = job.saver()
        with steps_explained(job.stage, job.config, execution):
            try:
                with _observing(training, job, held_out):
                    ended = training.run(stop)
            except RuntimeError as error:
                if not stop.interrupted or not compilation_failed(error):
                    raise
                # The signal has ended the compiler, too.
                way = "nothing was saved" if training.saved is None else execution.way_on
                raise stop.error(f"interrupted while the network was compiled; {way}") from None
    if ended:
        return Fitted(job.config, training.position.seconds, training.position.history)
    if execution.group.any(stop.interrupted):
        raise stop.error(f"interrupted and saved; {execution.way_on}")
    return None


def step_seconds(job: Job[Config], module: nn.Module, objective: Objective) -> float:
    """Measure the time of a training step of a job; nothing is learned or saved.

    Args:
        job: with epochs enough to measure a few steps.

    Raises:
        TrainingError: as `fit` does.
    """
    data, execution = job.data, job.execution
    with freed_memory_kept(execution.device):
        images = data.train.for_training(data.augmentation)
        inputs = Inputs(images, data.augmentation, data.transform)
        with steps_explained(job.stage, job.config, execution):
            training = Training(job.stage, module, objective, inputs, job.config, execution, job.saver())
            return training.step_seconds()


@contextmanager
def _observing(training: Training, job: Job[Config], held_out: ImageSource | None) -> Iterator[None]:
    """Have one process of a group tell the log of the run, TensorBoard and the caller of every epoch."""
    execution = job.execution
    if not execution.group.is_main:
        yield
        return
    done = len(training.position.history)
    listeners: list[Listener] = [LogListener(job.run.path, job.stage, done)]
    with ExitStack() as stack:
        if execution.tensorboard is not None:
            listeners.append(stack.enter_context(tensorboard_listener(execution.tensorboard, job.stage, done)))
        if execution.on_epoch is not None:
            listeners.append(execution.on_epoch)
        accuracy = None
        if held_out is not None:
            accuracy = HeldOutAccuracy(held_out, job.data.transform, training.precision)
        training.observer = EpochObserver(
            job.stage, job.config.epochs, training.module, training.device, training.compiled, accuracy, listeners
        )
        yield


def _resume(training: Training, job: Job[Config], state: TrainingState) -> None:
    """Bring a training to the saved state of a job.

    Raises:
        RunError: the state belongs to other images or another stage 1.
        DamagedError: the state is none of this training.
    """
    job.require_same_images(state)
    position = Position(state.step, state.seconds, dict(state.sums), list(state.history))
    try:
        training.restore(position, StateStore(job.run).tensors(state))
    except ValueError as error:
        raise DamagedError(
            f"{job.run.training}: not the state of this training: {error}; start over with --force"
        ) from None
