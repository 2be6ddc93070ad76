"""A labelled set of images, whether it lies in memory or in files."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.transforms import TestTransform, to_tensor
from m2sd_cli.errors import DataError


@dataclass(frozen=True)
class TrainingImages:
    """Every image of a training set as one tensor, ready to be moved to a device."""

    images: Tensor  # (N, S, S, 3) uint8
    aspects: Tensor  # (N,) float32, width / height before the image was squashed to S x S
    labels: Tensor  # (N,) int64


class ImageSource(Protocol):
    """N images with labels, read as often as wanted, never more than a batch at a time."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""

    def __len__(self) -> int: ...

    def batches(self, transform: TestTransform, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels, labels) through the test transform: uint8 (B, 3, crop, crop) and int64 (B,), in order."""

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """All images, as the augmentation wants them."""

    def digests(self) -> list[str]:
        """The SHA-256 of each image: of its pixels in memory, of its file on disk."""


@dataclass(frozen=True)
class ArrayImages:
    """Small images in memory, all of one size."""

    images: Tensor  # (N, H, W, 3) uint8
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor, labels: Tensor) -> "ArrayImages":
        """The images at `indices`, under new labels."""
        return ArrayImages(self.images[indices], labels)

    def batches(self, transform: TestTransform, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource. Images of the transform's own size are what it would make of them already."""
        fits = self.images.shape[1:3] == (transform.crop, transform.crop)
        for images, labels in zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True):
            if fits:
                yield images.permute(0, 3, 1, 2), labels
            else:
                yield torch.stack([transform.pixels(Image.fromarray(image.numpy())) for image in images]), labels

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """See ImageSource."""
        return TrainingImages(self.images, torch.ones(len(self)), self.labels)

    def digests(self) -> list[str]:
        """See ImageSource."""
        return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in self.images]


@dataclass(frozen=True)
class FileImages:
    """Image files of any size, decoded when they are needed."""

    paths: tuple[Path, ...]
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, transform: TestTransform, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource.

        Raises:
            DataError: a picture cannot be read.
        """
        with _decoders() as pool:
            for start in range(0, len(self), size):
                decoded = pool.map(lambda path: transform.pixels(open_rgb(path)), self.paths[start : start + size])
                yield torch.stack(list(decoded)), self.labels[start : start + size]

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """See ImageSource: every file decoded once, squashed to a square of `augmentation.store` pixels.

        Raises:
            DataError: a picture cannot be read.
        """
        side = augmentation.store or augmentation.size
        images = torch.empty(len(self), side, side, 3, dtype=torch.uint8)
        aspects = torch.empty(len(self))
        with _decoders() as pool:
            for number, (image, aspect) in enumerate(pool.map(partial(_squash, side=side), self.paths)):
                images[number], aspects[number] = image, aspect
        return TrainingImages(images, aspects, self.labels)

    def digests(self) -> list[str]:
        """See ImageSource."""
        return [_file_digest(path) for path in self.paths]


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _decoders() -> ThreadPoolExecutor:
    """Threads for decoding; Pillow lets go of the interpreter while it decodes and resizes."""
    return ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))


def _squash(path: Path, side: int) -> tuple[Tensor, float]:
    image = open_rgb(path)
    aspect = image.width / image.height
    return to_tensor(image.resize((side, side), Image.Resampling.BILINEAR)).permute(1, 2, 0), aspect


def from_numpy(images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", labels: list[int]) -> ArrayImages:
    """Images (N, H, W, 3) uint8 and their labels as a source."""
    return ArrayImages(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64))
