"""Settings and images that are quick to measure with."""

from typing import Any

import torch

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
