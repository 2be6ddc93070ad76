"""Settings and images that are quick to measure with."""

from typing import Any

import pytest
import torch

from m2sd_cli.benchmark.processes import Launched
from m2sd_cli.benchmark.settings import Settings, configure
from m2sd_cli.data.sources import TrainingImages


def tiny(**changes: Any) -> Settings:
    options: dict[str, Any] = {
        "backbone": "resnet20",
        "image_size": 8,
        "batch_size": 4,
        "classes": 5,
        "device": "cpu",
        "precision": "fp32",
        "seconds": 0.1,
        "rounds": 1,
        "workers": None,
    }
    return configure(**options | changes)


def few(images: int = 10) -> TrainingImages:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (images, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return TrainingImages(pixels, torch.ones(images), torch.arange(images) % 5)


def skip_slow_parts(patch: pytest.MonkeyPatch) -> None:
    """Have bench start no process and count no operations, which takes seconds and is tested here."""
    patch.setattr("m2sd_cli.benchmark.processes.launch", lambda words: Launched(1.0, 2**20))
    patch.setattr("m2sd_cli.benchmark.run.count_flops", lambda run: 10**6)
