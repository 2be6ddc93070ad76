"""The training that both stages share: batches, steps, precision, saving, stopping, resuming."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from m2sd_cli import progress
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.auto_augment import auto_augment
from m2sd_cli.data.colour import jitter
from m2sd_cli.data.cutout import cutout
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.distributed.batch_norm import share_statistics
from m2sd_cli.errors import DivergedError, TrainingError, UsageError
from m2sd_cli.inference.device import autocast
from m2sd_cli.reading import counted
from m2sd_cli.runs.manifest import EpochRecord
from m2sd_cli.runs.tensors import find_mismatch, tensor_specs
from m2sd_cli.training.batches import Batches, to_device
from m2sd_cli.training.compilation import compile_forward, mark_step
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.job import Position
from m2sd_cli.training.optimizers import (
    build_optimizer,
    optimizer_likes,
    optimizer_tensors,
    restore_optimizer,
    set_rate,
)
from m2sd_cli.training.randomness import stream
from m2sd_cli.training.recomputation import spare_memory
from m2sd_cli.training.schedules import learning_rate
from m2sd_cli.training.small_maps import spare_small_maps
from m2sd_cli.training.stopping import StopRequest
from m2sd_cli.training.sums import Sums, all_finite

if TYPE_CHECKING:
    from m2sd_cli.training.epochs import EpochObserver

MODULE = "module."
TOLD_AFTER = 5.0  # seconds of training, after which the time of the whole is estimated
PROBED = 3.0  # seconds of steps, by which a budget of time is turned into epochs
ACCURACY = "accuracy"
LOSS = "loss"
BF16 = ", or try --precision fp32"

# A function of normalised images (B, 3, H, W), labels (B,), a generator on their device, and the shard of the batch for
# this process. It returns the scalar to minimise and the measures to record, each a mean over the shard.
Objective = Callable[[Tensor, Tensor, torch.Generator, slice], tuple[Tensor, dict[str, Tensor]]]


class Inputs(NamedTuple):
    """The images of a training, and the way of a batch into the network."""

    images: TrainingImages
    augmentation: Augmentation  # from stored images to images of the network's size
    transform: TestTransform  # from these to the network's input


class Training:
    """The training of one module in one stage.

    Every process of a group draws the whole batch from the same streams and computes on its shard of it. A training
    depends on the number of processes by rounding alone.

    Args:
        stage: the name of the stage; the random streams of different stages differ.
        inputs: all images, moved to the device if they fit there, and their way into the network.
        execution: the device and the conditions; `stop_after` is left to the caller.
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
        inputs: Inputs,
        config: PretrainConfig | DistillConfig,
        execution: Execution,
        save: Callable[[Position, dict[str, Tensor]], None],
    ) -> None:
        device, group = execution.device, execution.group
        data, self.augmentation, self.transform = inputs
        if len(data.labels) < 2:
            raise TrainingError("training needs at least two images; add some")
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
        self.objective = objective
        self.device = device
        self.precision = execution.exact_precision
        spare_small_maps(module, self.augmentation.size, device, self.precision)
        # A CPU shares its memory with other programs, the memory of a GPU is there to be used. Processes that share a
        # batch may differ by an image, and in the maps that are large: their batch norms would wait for each other.
        if device.type == "cpu" and group.size == 1:
            spare_memory(self.module, self._loss_of_noise, max(end - begin for begin, end in self.bounds))
        if group.size > 1:
            share_statistics(module, device)
            group.broadcast(module)
        self.compiled = execution.compile
        if self.compiled:
            compile_forward(module, device)
        self.config: PretrainConfig | DistillConfig = config
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
            ValueError: the position or the tensors belong to another training.
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
        """Train until the last epoch has ended or a stop is requested, and save the state.

        Returns:
            True if the last epoch has ended.

        Raises:
            DivergedError: the loss or a tensor is not finite; the last saved state is left as it was.
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
        epochs, steps = counted(self.config.epochs, "epoch"), counted(len(self.bounds), "step")
        progress.say(f"{self.stage}: {epochs} of {steps}, about {left} from now on")

    def step_seconds(self, enough: float | None = None) -> float:
        """Measure the seconds of a step on the first batches, and take the steps back: nothing has been learned.

        Args:
            enough: seconds to measure for, one step at least; None for PROBED.
        """
        enough = PROBED if enough is None else enough
        before = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        sums = Sums(self.device, {})
        sizes: set[int] = set()
        took, counted_steps = 0.0, 0
        with closing(self.batches):
            while not counted_steps or self.position.step < self.steps:
                begin, end = self.bounds[self.position.step % len(self.bounds)]
                began = time.monotonic()
                self._step(sums)
                sums.read()  # waits for the device
                if end - begin in sizes:  # the first step of a size is slower, and far slower where it is compiled
                    took, counted_steps = took + time.monotonic() - began, counted_steps + 1
                sizes.add(end - begin)
                if self.group.any(counted_steps > 0 and took >= enough):
                    break
        seconds = took / counted_steps
        self.module.load_state_dict(before)
        self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        self.position = Position()
        return seconds

    def _loss_of_noise(self, images: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(images, 3, self.augmentation.size, self.augmentation.size, generator=generator)
        with autocast(self.device, self.precision):
            return self.objective(x, torch.arange(images) % 2, generator, slice(0, images))[0]

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
        """Save the state, unless it is not finite: the last saved state is worth more then.

        Raises:
            DivergedError: a sum, parameter, buffer or momentum is not finite.
        """
        self.position.sums = self._read(sums)
        tensors = self.tensors()
        if not all_finite(tensors):
            raise self._failure(f"{self.stage}: no finite weights after step {self.position.step} of {self.steps}")
        if self.group.is_main:
            self.save(self.position, tensors)
        self.saved = self.position.step

    def _read(self, sums: Sums) -> dict[str, float]:
        """Read the sums, which waits for the device.

        Raises:
            DivergedError: a sum is not finite.
        """
        values = sums.read()
        if all(map(math.isfinite, values.values())):
            return values
        step, names = sums.end()
        terms = [name for name in names if name != LOSS] or [LOSS]
        reason = f"{self.stage}: no finite value of {' and '.join(terms)} at step {step} of {self.steps}"
        if step == 1:
            way = "no learning rate did that: look at the weights that it began from"
            raise DivergedError(reason, f"{way}{BF16 if self.precision == 'bf16' else ''}")
        raise self._failure(reason)

    def _failure(self, reason: str) -> DivergedError:
        if self.saved is None:
            way = "no state was saved before; start over with a lower --learning-rate"
        else:
            way = (
                f"the last good state, of step {self.saved}, is kept, but goes on to the same end: start over with "
                f"--force and a lower --learning-rate"
            )
        return DivergedError(reason, way)

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
