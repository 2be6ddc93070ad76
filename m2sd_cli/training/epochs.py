"""The figures of every epoch, for the log of the run, TensorBoard and a function of the caller."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2sd_cli import progress
from m2sd_cli.config.stages import STAGES
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.extras import install_extra
from m2sd_cli.inference.features import FEATURE_BATCH, embed_batches
from m2sd_cli.method.network import Network
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import EpochRecord
from m2sd_cli.runs.training_log import TrainingLog, log_error

HELD_OUT_SHARE = 0.02  # of the time of training, for accuracies on held-out images
PROBE = 32  # held-out images, by which the time for all of them is estimated


@dataclass(frozen=True)
class EpochFigures:
    """The figures of an epoch that has ended.

    Attributes:
        epoch: from 1, of `epochs`.
        loss: mean over the images of the epoch, as are `accuracy` and `terms`, in training mode.
        accuracy: share of unmixed training images; None where the stage does not know it.
        terms: the terms of the loss by name, without their weights.
        learning_rate: of W at the last step.
        held_out_accuracy: share of the held-out base images that W labels rightly after the epoch; None without such
            images, and in an epoch without a measurement.
        held_out_every: epochs from one measurement to the next, so that all take HELD_OUT_SHARE of the time.
        images_per_second: of training, without the measurement.
        peak_memory: bytes; of tensors on CUDA, else of the process. None where the system does not tell.
        seconds: of the whole stage, with the time before an interruption.
        network: as it is after the epoch; a listener leaves it in training mode.
    """

    stage: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float | None
    terms: dict[str, float]
    learning_rate: float
    held_out_accuracy: float | None
    held_out_every: int | None
    images_per_second: float
    peak_memory: int | None
    seconds: float
    network: Network

    def as_line(self) -> dict[str, Any]:
        """Return the figures without the network, and the time of day, as a line of the log."""
        line = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "network"}
        line |= {"images_per_second": round(self.images_per_second, 2), "seconds": round(self.seconds, 3)}
        return line | {"time": datetime.now(UTC).isoformat(timespec="seconds")}


CURVES = ("loss", "accuracy", "held_out_accuracy", "learning_rate", "images_per_second", "peak_memory")

Listener = Callable[[EpochFigures], None]


class HeldOutAccuracy:
    """The accuracy of a network on held-out images, measured so seldom that it takes HELD_OUT_SHARE of the time.

    Args:
        source: the sample of held-out images that is measured on.
        precision: of training, fp32 or bf16.
    """

    def __init__(self, source: ImageSource, transform: TestTransform, precision: str) -> None:
        self._source = source
        self._transform = transform
        self._precision = precision
        self._waited = 0  # epochs since the last measurement
        self.every: int | None = None

    def measure(self, network: Network, epoch_seconds: float) -> float | None:
        """Return the accuracy; None in an epoch without a measurement.

        Args:
            network: in training mode, to which it returns.
            epoch_seconds: time of an epoch.
        """
        count = len(self._source)
        if self.every is None:
            _, seconds = self._right(network, slice(min(PROBE, count)))
            self.every = _interval(seconds * count / min(PROBE, count), epoch_seconds)
        self._waited += 1
        if self._waited < self.every:
            return None
        self._waited = 0
        right, seconds = self._right(network, slice(count))
        self.every = _interval(seconds, epoch_seconds)
        return right / count

    def _right(self, network: Network, shard: slice) -> tuple[int, float]:
        """Count the images of a shard that are labelled rightly, and the seconds that this takes."""
        began = time.monotonic()
        backbone = network.backbone
        right = 0
        try:
            batches = self._source.for_testing(self._transform, FEATURE_BATCH, shard)
            for features, labels in embed_batches(backbone, batches, self._transform, self._precision):
                right += self._count(network, features, labels)
        finally:
            network.train()
        return right, time.monotonic() - began

    @staticmethod
    @torch.no_grad()
    def _count(network: Network, features: Tensor, labels: Tensor) -> int:
        return int((network.class_weights(features).argmax(dim=1) == labels).sum())


def _interval(seconds: float, epoch_seconds: float) -> int:
    return max(1, math.ceil(seconds / (HELD_OUT_SHARE * epoch_seconds)))


@dataclass
class EpochObserver:
    """The link from a training to the listeners of its epochs.

    Attributes:
        stage, epochs: of the training.
        module: the trained one.
        device: that the module is trained on.
        compiled: True if the module is compiled. Held-out images are then computed without the compiler, which would
            compile once more for them.
        held_out: measures the accuracy; None if no image is held out.
        listeners: the functions that take the figures.
    """

    stage: str
    epochs: int
    module: nn.Module
    device: torch.device
    compiled: bool
    held_out: HeldOutAccuracy | None
    listeners: list[Listener]

    def __post_init__(self) -> None:
        self.network = next(part for part in self.module.modules() if isinstance(part, Network))

    def end_epoch(self, record: EpochRecord, images_per_second: float, epoch_seconds: float, seconds: float) -> None:
        """Tell the listeners of an epoch.

        Args:
            record: of the epoch.
            images_per_second: of training.
            epoch_seconds: time of a whole epoch of training.
            seconds: of the stage.
        """
        accuracy, began = None, time.monotonic()
        if self.held_out is not None:
            stance: AbstractContextManager[object] = nullcontext()
            if self.compiled:
                stance = torch.compiler.set_stance("force_eager")
            with stance:
                accuracy = self.held_out.measure(self.network, epoch_seconds)
        figures = EpochFigures(
            stage=self.stage,
            epoch=record.epoch,
            epochs=self.epochs,
            loss=record.loss,
            accuracy=record.accuracy,
            terms=record.terms,
            learning_rate=record.learning_rate,
            held_out_accuracy=accuracy,
            held_out_every=self.held_out.every if self.held_out is not None else None,
            images_per_second=images_per_second,
            peak_memory=peak_memory(self.device),
            seconds=seconds + time.monotonic() - began,
            network=self.network,
        )
        for listener in self.listeners:
            listener(figures)


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that tensors have taken on CUDA, or the process elsewhere; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # as on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak_memory(device: torch.device) -> None:
    """Have `peak_memory` count from here on, on CUDA; that of a process is that of all its life."""
    # Before CUDA has begun nothing is taken, and torch refuses to reset.
    if device.type == "cuda" and torch.cuda.max_memory_allocated(device):
        torch.cuda.reset_peak_memory_stats(device)


class LogListener:
    """The listener that writes the log of a run. A log that cannot be written ends no training.

    Args:
        folder: the run folder.
        stage: that is trained.
        done: the number of its epochs that were trained before; their lines are kept.
    """

    def __init__(self, folder: Path, stage: str, done: int) -> None:
        self._log = TrainingLog(folder, STAGES)
        self._stage, self._done = stage, done
        self._begun = self._told = False

    def __call__(self, figures: EpochFigures) -> None:
        """Write a line; the first one removes those of an earlier training."""
        try:
            if not self._begun:
                self._log.keep(self._stage, self._done)
                self._begun = True
            self._log.append(figures.as_line())
        except (OSError, M2sdError) as error:
            if not self._told:
                progress.say(f"{self._log.path}: cannot be written ({log_error(error)}); the training goes on")
            self._told = True


def end_log(run: RunFolder, stage: str, epochs: int) -> None:
    """Remove every line from a log but those of earlier stages and of the training that has just finished.

    Within `RunFolder.at_once` the log stays as it is: it is that of the earlier chain.
    """
    if run.holds_back:
        return
    with suppress(OSError, M2sdError):
        TrainingLog(run.path, STAGES).keep(stage, epochs)


def check_tensorboard(folder: Path | None) -> None:
    """Refuse a folder for TensorBoard that cannot be written, or a machine without its package.

    Raises:
        UsageError: the path is that of no folder.
        M2sdError: the package is not installed, or the folder cannot be made.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--tensorboard {folder}: not a folder; name another")
    try:
        import torch.utils.tensorboard  # noqa: F401 (takes a second, and is an extra)
    except ImportError:
        raise M2sdError(f"--tensorboard: its package is not installed: {install_extra('tensorboard')}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise M2sdError(f"--tensorboard {folder}: cannot be made ({error.strerror or error})") from None


@contextmanager
def tensorboard_listener(folder: Path, stage: str, done: int) -> Iterator[Listener]:
    """Write the curves of a stage for TensorBoard, in place of those of epochs that are trained once more.

    Args:
        folder: to which each stage adds a folder of its own.
        stage: that is trained.
        done: the number of its epochs that were trained before.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / stage), purge_step=done + 1)

    def write(figures: EpochFigures) -> None:
        curves = {name: getattr(figures, name) for name in CURVES}
        curves |= {f"terms/{name}": value for name, value in figures.terms.items()}
        with suppress(OSError):
            for name, value in curves.items():
                if value is not None:
                    writer.add_scalar(name, value, figures.epoch)
            writer.flush()

    try:
        yield write
    finally:
        with suppress(OSError):
            writer.close()
