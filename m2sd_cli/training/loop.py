"""The training that both stages share: batches, steps, precision, saving, stopping, resuming."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from m2sd_cli import progress
from m2sd_cli.config.stages import Config, DistillConfig, PretrainConfig
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.auto_augment import auto_augment
from m2sd_cli.data.colour import jitter
from m2sd_cli.data.cutout import cutout
from m2sd_cli.data.sources import ImageSource, TrainingImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.distributed.batch_norm import share_statistics
from m2sd_cli.errors import DamagedError, TrainingError, UsageError
from m2sd_cli.inference.device import autocast
from m2sd_cli.inference.features import FEATURE_BATCH, held_out_sample
from m2sd_cli.runs.manifest import EpochRecord, TrainingState
from m2sd_cli.runs.tensors import find_mismatch, tensor_specs
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.batches import Batches, to_device
from m2sd_cli.training.compilation import compilation_failed, compile_forward, mark_step, not_compiled
from m2sd_cli.training.determinism import is_not_deterministic
from m2sd_cli.training.epochs import (
    HELD_OUT_SHARE,
    EpochObserver,
    HeldOutAccuracy,
    Listener,
    LogListener,
    tensorboard_listener,
)
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.job import Fitted, Job, Position
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.optimizers import (
    build_optimizer,
    optimizer_likes,
    optimizer_tensors,
    restore_optimizer,
    set_rate,
)
from m2sd_cli.training.randomness import stream
from m2sd_cli.training.schedules import learning_rate
from m2sd_cli.training.small_maps import spare_small_maps
from m2sd_cli.training.stopping import StopRequest
from m2sd_cli.training.sums import Sums, all_finite

MODULE = "module."
TOLD_AFTER = 5.0  # seconds of training, after which its whole time can be told
PROBED = 3.0  # seconds of steps on which a budget of time is divided
ACCURACY = "accuracy"
LOSS = "loss"
BF16 = ", or try --precision fp32"

# A function of normalised images (B, 3, H, W), labels (B,), a generator on their device, and the shard of the batch for
# this process. It returns the scalar to minimise and the measures to record, each a mean over the shard.
Objective = Callable[[Tensor, Tensor, torch.Generator, slice], tuple[Tensor, dict[str, Tensor]]]


class Training:
    """The training of one module in one stage.

    Every process of a group draws the whole batch from the same streams and computes on its shard of it. A training
    depends on their number by rounding alone.

    Args:
        stage: the name of the stage; the random streams of different stages differ.
        data: all images; moved to the device if they fit there.
        augmentation: from stored images to images of the network's size.
        transform: from these to the network's input.
        execution: where and how to compute; `stop_after` is the caller's business.
        save: the function of a position and all tensors that saves them, called between two steps.

    Raises:
        TrainingError: there are fewer than two images.
        UsageError: a batch has fewer images than there are processes.
    """

    def __init__(
        self,
        stage: str,
        module: nn.Module,
        objective: Objective,
        data: TrainingImages,
        augmentation: Augmentation,
        transform: TestTransform,
        config: PretrainConfig | DistillConfig,
        execution: Execution,
        save: Callable[[Position, dict[str, Tensor]], None],
    ) -> None:
        device, group = execution.device, execution.group
        if len(data.labels) < 2:
            raise TrainingError("training needs at least two images")
        data = to_device(data, device)
        ahead = data.images.device.type != device.type

        def order(epoch: int) -> Tensor:
            return torch.randperm(len(data.labels), generator=stream(config.seed, f"{stage} order", epoch))

        self.batches = Batches(data, config.batch_size, order, device, ahead)
        self.bounds = self.batches.bounds
        smallest = min(end - begin for begin, end in self.bounds)
        if smallest < group.size:
            raise UsageError(
                f"--batch-size {config.batch_size}: a batch of {smallest} images cannot be shared by {group.size} "
                f"processes; choose another size, or fewer processes"
            )
        self.group = group
        self.stage = stage
        self.module = module.to(device).to(memory_format=torch.channels_last).train()
        spare_small_maps(module, augmentation.size, device, execution.exact_precision)
        if group.size > 1:
            share_statistics(module, device)
            group.broadcast(module)
        self.compiled = execution.compile
        if self.compiled:
            compile_forward(module, device)
        self.objective = objective
        self.augmentation = augmentation
        self.transform = transform
        self.config: PretrainConfig | DistillConfig = config
        self.device = device
        self.precision = execution.exact_precision
        self.save = save
        self.save_every = execution.save_every
        self.steps = config.epochs * len(self.bounds)
        self.position = Position()
        self.saved: int | None = None  # the step of the last saved state
        self.observer: EpochObserver | None = None
        self.images = len(data.labels)
        self.rate = config.learning_rate
        self.optimizer = build_optimizer(module, config, fused=device.type in ("cpu", "cuda"))

    def tensors(self) -> dict[str, Tensor]:
        """Collect the tensors that the next step depends on: parameters, buffers and the optimiser's."""
        tensors = {MODULE + name: tensor for name, tensor in self.module.state_dict().items()}
        return tensors | optimizer_tensors(self.optimizer, self.config.optimizer, self.module)

    def restore(self, position: Position, tensors: dict[str, Tensor]) -> None:
        """Go on from the position at which `tensors()` were collected.

        Raises:
            ValueError: they belong to another training.
        """
        likes = optimizer_likes(self.config.optimizer, self.module)
        wrong = find_mismatch(tensors, tensor_specs(self.module.state_dict(), MODULE), tensor_specs(likes))
        if wrong is not None:
            raise ValueError(wrong)
        if position.step > self.steps or len(position.history) != position.step // len(self.bounds):
            raise ValueError(f"{position.step} steps and {len(position.history)} epochs do not fit each other")
        self.position = position
        self.saved = position.step
        self.module.load_state_dict(
            {name.removeprefix(MODULE): tensor for name, tensor in tensors.items() if name.startswith(MODULE)}
        )
        restore_optimizer(self.optimizer, self.config.optimizer, self.module, tensors)

    def run(self, stop: StopRequest) -> bool:
        """Train until the last epoch has ended, or until asked to stop; the state has been saved then.

        Returns:
            True if the last epoch has ended.

        Raises:
            TrainingError: the loss or a tensor is no longer finite; the last saved state is as it was.
        """
        began = time.monotonic() - self.position.seconds
        first_step, first_time = self.position.step, time.monotonic()
        saved = shown = epoch_began = first_time
        epoch_first = first_step
        interval = progress.snapshot_interval()
        told = False
        sums = Sums(self.device, self.position.sums)
        with closing(self.batches):
            while self.position.step < self.steps:
                self._step(sums)
                now = time.monotonic()
                self.position.seconds = now - began
                epoch_ended = self.position.step % len(self.bounds) == 0
                if epoch_ended:
                    self._end_epoch(sums)
                    if self.observer is not None:
                        share = (self.position.step - epoch_first) / len(self.bounds)  # less than 1 if resumed in it
                        seconds = (time.monotonic() - epoch_began) / share
                        self.observer.end_epoch(
                            self.position.history[-1], self.images / seconds, seconds, time.monotonic() - began
                        )
                    epoch_began, epoch_first = time.monotonic(), self.position.step
                if self.position.step == first_step + 1:
                    after_first = now  # the first step of a process is slower
                elif not told and now - after_first >= TOLD_AFTER and self.position.step >= first_step + 3:
                    self._tell((now - after_first) / (self.position.step - first_step - 1))
                    told = True
                if now - shown >= interval or self.position.step == self.steps:
                    done = self.position.step - first_step
                    self._show(sums, (now - first_time) / done)
                    shown = now
                if epoch_ended:
                    sums = Sums(self.device, {})
                finished = self.position.step == self.steps
                stopping = self.group.any(stop.wanted)
                # A finished training is saved too: the checkpoint takes time to make, and the disk may be full.
                if finished or stopping or (self.group.is_main and now - saved >= self.save_every):
                    self._save(sums)
                    saved = time.monotonic()
                if stopping and not finished:
                    return False
        return True

    def _tell(self, seconds_a_step: float) -> None:
        """Say how long the training takes."""
        left = progress.duration((self.steps - self.position.step) * seconds_a_step)
        epochs = f"{self.config.epochs} epoch{'s' if self.config.epochs > 1 else ''} of {len(self.bounds)} steps"
        progress.say(f"{self.stage}: {epochs}, about {left} from now on")

    def fit_epochs(self, seconds: float, began: float) -> int:
        """Choose as many epochs as a time allows, by the time of a few steps that are taken back.

        Args:
            seconds: for the training.
            began: when this time began, by time.monotonic().

        Returns:
            their number.

        Raises:
            UsageError: one epoch takes longer.
        """
        epoch_seconds = self.step_seconds() * len(self.bounds) * (1 + HELD_OUT_SHARE)
        left = seconds - (time.monotonic() - began)
        # Processes measure different times, and have to come to the same number.
        choice = torch.tensor(left / epoch_seconds if self.group.is_main else 0.0, device=self.device)
        self.group.all_reduce(choice)
        epochs = int(choice)
        if epochs < 1:
            raise too_little_time(seconds, epoch_seconds)
        self.config = replace(self.config, epochs=epochs)
        self.steps = epochs * len(self.bounds)
        progress.say(f"{self.stage}: --time-budget allows {epochs} epochs; --epochs {epochs} repeats the training")
        return epochs

    def step_seconds(self, enough: float | None = None) -> float:
        """Measure the time of a step on the first batches, and take the steps back: nothing has been learned.

        Args:
            enough: seconds of steps, of which there are two at least; None for PROBED.
        """
        enough = PROBED if enough is None else enough
        before = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        sums = Sums(self.device, {})
        began = took = 0.0
        with closing(self.batches):
            while self.position.step < max(self.steps, 2):
                self._step(sums)
                sums.read()  # waits for the device
                if self.position.step == 1:
                    began = time.monotonic()  # the first step of a process is slower
                took = time.monotonic() - began
                if self.group.any(took >= enough and self.position.step > 1):
                    break
        seconds = took / (self.position.step - 1)
        self.module.load_state_dict(before)
        self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        self.position = Position()
        return seconds

    def _batch(self) -> tuple[Tensor, Tensor, torch.Generator]:
        step = self.position.step
        generator = stream(self.config.seed, f"{self.stage} step", step, self.device)
        images, aspects, labels = self.batches.take(step)
        images = self.augmentation(images, aspects, generator)
        if self.config.auto_augment != "none":
            draws = stream(self.config.seed, f"{self.stage} auto-augment", step)
            images = auto_augment(images, self.config.auto_augment, draws)
        if self.config.colour:
            images = jitter(images, self.config.colour, generator)
        x = self.transform.normalise(images)
        if self.config.cutout:
            x = cutout(x, self.config.cutout, generator)
        return x, labels, generator

    def _step(self, sums: Sums) -> None:
        x, labels, generator = self._batch()
        self.rate = learning_rate(self.config, self.position.step, len(self.bounds))
        set_rate(self.optimizer, self.rate)
        shard = self.group.shard(len(labels))
        if self.compiled:
            mark_step()  # the results of the last step may be overwritten
        with autocast(self.device, self.precision):
            loss, measures = self.objective(x, labels, generator, shard)
        self.optimizer.zero_grad(set_to_none=True)
        images = shard.stop - shard.start
        torch.autograd.backward(loss if self.group.size == 1 else loss * (images / len(labels)))
        measures = {LOSS: loss, **measures}
        values = torch.stack([value.detach().float() for value in measures.values()]) * images
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        self.group.all_reduce(*gradients, values)
        self.optimizer.step()
        self.position.step += 1
        sums.add(list(measures), values, self.position.step)

    def _save(self, sums: Sums) -> None:
        """Save the state, unless it is not finite: the state that was saved before is worth more then.

        Raises:
            TrainingError: a sum, parameter, buffer or momentum is not finite.
        """
        self.position.sums = self._read(sums)
        tensors = self.tensors()
        if not all_finite(tensors):
            raise self._failure(f"no finite weights after step {self.position.step} of {self.steps}")
        if self.group.is_main:
            self.save(self.position, tensors)
        self.saved = self.position.step

    def _read(self, sums: Sums) -> dict[str, float]:
        """Read the sums, which waits for the device.

        Raises:
            TrainingError: a sum is not finite.
        """
        values = sums.read()
        if all(map(math.isfinite, values.values())):
            return values
        step, names = sums.end()
        terms = [name for name in names if name != LOSS] or [LOSS]
        reason = f"no finite value of {' and '.join(terms)} at step {step} of {self.steps}"
        if step == 1:
            way = "no learning rate did that: look at the weights that it began from"
            raise TrainingError(f"{self.stage}: {reason}; {way}{BF16 if self.precision == 'bf16' else ''}")
        raise self._failure(reason)

    def _failure(self, reason: str) -> TrainingError:
        if self.saved is None:
            way = "no state was saved before; start over with a lower --learning-rate"
        else:
            way = (
                f"the last good state, of step {self.saved}, is kept, but goes on to the same end: start over with "
                f"--force and a lower --learning-rate"
            )
        return TrainingError(f"{self.stage}: {reason}; {way}")

    def _averages(self, sums: Sums) -> dict[str, float]:
        step = self.position.step - 1
        images = self.bounds[step % len(self.bounds)][1]
        return {name: value / images for name, value in self._read(sums).items()}

    def _end_epoch(self, sums: Sums) -> None:
        averages = self._averages(sums)
        epoch = self.position.step // len(self.bounds)
        self.position.history.append(
            EpochRecord(
                epoch=epoch,
                loss=averages.pop(LOSS),
                accuracy=averages.pop(ACCURACY, None),
                terms=averages,
                learning_rate=self.rate,
            )
        )

    def _show(self, sums: Sums, seconds_a_step: float) -> None:
        averages = self._averages(sums)
        progress.show(
            progress.Snapshot(
                epoch=(self.position.step - 1) // len(self.bounds) + 1,
                epochs=self.config.epochs,
                step=self.position.step,
                steps=self.steps,
                loss=averages[LOSS],
                accuracy=averages.get(ACCURACY),
                images_per_second=self.images / len(self.bounds) / seconds_a_step,
                seconds_left=(self.steps - self.position.step) * seconds_a_step,
            )
        )


def too_little_time(seconds: float, epoch_seconds: float) -> UsageError:
    """Make the error of a budget of time in which no epoch fits."""
    return UsageError(
        f"--time-budget: an epoch takes about {progress.duration(epoch_seconds)}, and {seconds:.0f} s are too "
        f"little for it; allow more time, or train on fewer images with --images-per-class"
    )


@contextmanager
def steps_explained(stage: str, config: PretrainConfig | DistillConfig, execution: Execution) -> Iterator[None]:
    """Turn what torch raises of steps into errors that name the option.

    Raises:
        TrainingError: torch lacks memory, a compiler or an algorithm.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"{stage}: the memory of {execution.device} is too small for batches of {config.batch_size} images; lower "
            f"--batch-size"
        ) from None
    except RuntimeError as error:
        if is_not_deterministic(error):
            raise TrainingError(f"--deterministic: {str(error).split(',')[0]}; begin without it") from None
        if not compilation_failed(error):
            raise
        raise not_compiled(error) from None


def fit(job: Job[Config], module: nn.Module, objective: Objective) -> Fitted[Config] | None:
    """Train to the last epoch, or until stopped.

    Returns:
        None if the time limit ended it, after the state was saved.

    Raises:
        DataError: a picture cannot be read; held-out ones are read, too.
        InterruptedTrainingError: a signal ended it, after the state was saved.
        RunError: the state to resume from belongs to other images or another stage 1.
        DamagedError: it is not a state of this training.
        TrainingError: the loss is no longer finite, or torch lacks memory, a compiler or an algorithm.
    """
    data, execution = job.data, job.execution
    began = time.monotonic()
    # The time runs from here on, since a cluster counts the decoding of images, too.
    stop = StopRequest(execution.stop_after)
    with stop.on_signals(), freed_memory_kept(execution.device):
        with execution.group.local_main_first():
            held_out = None
            if data.held_out is not None and len(data.held_out):
                # They are used after an epoch, but an unreadable picture should be reported before it.
                held_out = held_out_sample(data.held_out)
                held_out.for_testing(data.transform, FEATURE_BATCH)
            images = data.train.for_training(data.augmentation)
        training = Training(
            job.stage, module, objective, images, data.augmentation, data.transform, job.config, execution, job.saver()
        )
        if job.state is not None:
            _resume(training, job, job.state)
            if execution.time_budget is not None:
                progress.say(f"{job.stage}: the budget of time allowed {job.config.epochs} epochs when it began")
        elif execution.time_budget is not None:
            epochs = training.fit_epochs(execution.time_budget, began)
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
                way = "nothing was saved" if training.saved is None else "go on with the same command and --resume"
                raise stop.error(f"interrupted while the network was compiled; {way}") from None
    if ended:
        return Fitted(job.config, training.position.seconds, training.position.history)
    if execution.group.any(stop.interrupted):
        raise stop.error("interrupted and saved; go on with the same command and --resume")
    return None


def step_seconds(job: Job[Config], module: nn.Module, objective: Objective) -> float:
    """Measure the time of a training step of a job; nothing is learned or saved.

    Args:
        job: with epochs enough to measure a few steps.
    """
    data, execution = job.data, job.execution
    with freed_memory_kept(execution.device):
        images = data.train.for_training(data.augmentation)
        training = Training(
            job.stage, module, objective, images, data.augmentation, data.transform, job.config, execution, job.saver()
        )
        return training.step_seconds()


@contextmanager
def _observing(training: Training, job: Job[Config], held_out: ImageSource | None) -> Iterator[None]:
    """Tell the log of the run, TensorBoard and the caller of every epoch; one process of a group does."""
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
        DamagedError: it is not a state of this training.
    """
    job.require_same_images(state)
    position = Position(state.step, state.seconds, dict(state.sums), list(state.history))
    try:
        training.restore(position, StateStore(job.run).tensors(state))
    except ValueError as error:
        raise DamagedError(
            f"{job.run.training}: not the state of this training: {error}; start over with --force"
        ) from None
