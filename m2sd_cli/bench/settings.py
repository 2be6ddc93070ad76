"""What is measured and for how long, validated."""

from dataclasses import dataclass

import torch

from m2sd_cli.config import DistillConfig, PretrainConfig, validate
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import choose_device, inference_precision, training_precision

MOST_WORKERS = 8
# Random labels teach nothing, and in thousands of steps at a usual rate the loss may grow beyond all bounds; a step
# takes the same time at any rate.
LEARNING_RATE = 1e-6
EPOCHS = 10**6  # more than there is time for


@dataclass(frozen=True)
class Settings:
    """One measurement."""

    pretrain: PretrainConfig
    distill: DistillConfig
    image_size: int  # pixels
    classes: int
    device: torch.device
    precision: str  # as asked for, which may be auto
    seconds: float  # that the throughput of everything together is measured
    rounds: int
    workers: int | None  # processes of the reference loop; None leaves it out
    compiled: bool = False  # whether both stages are compiled first

    @property
    def training_precision(self) -> str:
        """fp32 or bf16, in which both stages compute."""
        return training_precision(self.precision, self.device)

    @property
    def feature_precision(self) -> str:
        """fp32 or bf16, in which features are computed."""
        return inference_precision(self.precision)


def configure(
    backbone: str,
    image_size: int,
    batch_size: int,
    classes: int,
    device: str,
    precision: str,
    seconds: float,
    rounds: int,
    workers: int | None,
    compiled: bool = False,
) -> Settings:
    """Settings from options.

    Raises:
        UsageError: one of them makes no sense, or there is no such device.
    """
    shared = {"epochs": EPOCHS, "batch_size": batch_size, "learning_rate": LEARNING_RATE}
    pretrain = validate(PretrainConfig, {**shared, "backbone": backbone, "image_size": image_size})
    distill = validate(DistillConfig, shared)
    if classes < 2:
        raise UsageError(f"--classes {classes}: at least 2, since images of different classes are mixed")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds {seconds}: more than 0")
    if rounds < 1:
        raise UsageError(f"--rounds {rounds}: at least 1")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: at least 1")
    chosen = choose_device(device)
    training_precision(precision, chosen)
    return Settings(pretrain, distill, image_size, classes, chosen, precision, seconds, rounds, workers, compiled)
