"""A labelled set of images, whether it lies in memory or in files."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.decoded import Entry, Request, keep
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.mapped import MappedImages
from m2sd_cli.data.names import name_digest
from m2sd_cli.data.picture_files import open_file
from m2sd_cli.data.threads import in_order
from m2sd_cli.data.transforms import TestTransform, to_tensor
from m2sd_cli.errors import DataError, PictureError
from m2sd_cli.progress import count_passing

ALL = slice(None)


@dataclass(frozen=True)
class TrainingImages:
    """Every image of a training set as one tensor, in memory or in a file, ready to be moved to a device."""

    images: Tensor  # (N, S, S, 3) uint8
    aspects: Tensor  # (N,) float32, width / height before the image was squashed to S x S
    labels: Tensor  # (N,) int64
    mapped: MappedImages | None = None  # if `images` are the pages of a file

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, aspects and labels at `indices` (B,), which are where the images are."""
        images = self.images.index_select(0, indices) if self.mapped is None else self.mapped.take(indices)
        return images, self.aspects.index_select(0, indices), self.labels.index_select(0, indices)

    def to(self, device: torch.device) -> "TrainingImages":
        """All of it on a device; those that are there already, in a file too, are not copied."""
        if self.images.device.type == device.type == "cpu":
            return self
        images = self.images.to(device) if self.mapped is None else self.mapped.to(device)
        return TrainingImages(images, self.aspects.to(device), self.labels.to(device))


class ImageSource(Protocol):
    """N images with labels, read as often as wanted, never more than a batch at a time."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor, labels: Tensor) -> "ImageSource":
        """The images at `indices` (M,) int64, under new labels (M,) int64."""

    def batches(self, transform: TestTransform, size: int, rows: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels, labels) through the test transform: uint8 (B, 3, crop, crop) and int64 (B,), in order.

        Args:
            transform: what each image goes through.
            size: B, but for the last batch.
            rows: which consecutive images to read.
        """

    def for_testing(self, transform: TestTransform, size: int, rows: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """As `batches`, of images that will be asked for again: what had to be decoded is kept."""

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """All images, as the augmentation wants them."""

    def digests(self) -> list[str]:
        """The SHA-256 of each image: of its pixels in memory, of its file on disk."""

    def lots(self) -> list[str]:
        """A SHA-256 for each image, by which lots are drawn: of its pixels in memory, of its file's bare name on disk,
        so that no file is read for it.
        """


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

    def batches(self, transform: TestTransform, size: int, rows: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource. Images of the transform's own size are what it would make of them already."""
        fits = self.images.shape[1:3] == (transform.crop, transform.crop)
        wanted, labels_of = self.images[rows], self.labels[rows]
        for start in range(0, len(wanted), size):
            images, labels = wanted[start : start + size], labels_of[start : start + size]
            if fits:
                yield images.permute(0, 3, 1, 2), labels
            else:
                yield torch.stack([transform.pixels(Image.fromarray(image.numpy())) for image in images]), labels

    def for_testing(self, transform: TestTransform, size: int, rows: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource."""
        return self.batches(transform, size, rows)

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """See ImageSource."""
        return TrainingImages(self.images, torch.ones(len(self)), self.labels)

    def digests(self) -> list[str]:
        """See ImageSource."""
        return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in self.images]

    def lots(self) -> list[str]:
        """See ImageSource."""
        return self.digests()


@dataclass(frozen=True)
class FileImages:
    """Image files of any size, decoded when they are needed."""

    paths: tuple[Path, ...]
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Tensor, labels: Tensor) -> "FileImages":
        """See ImageSource. What is selected has decoded images of its own, which are all that its training reads."""
        return FileImages(tuple(self.paths[index] for index in indices.tolist()), labels)

    def batches(self, transform: TestTransform, size: int, rows: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource. The next batch is decoded while the caller works on the last.

        Raises:
            DataError: a picture cannot be read.
        """
        paths, labels = self.paths[rows], self.labels[rows]
        with closing(in_order(lambda path: transform.pixels(open_rgb(path)), paths, ahead=size)) as decoded:
            for start in range(0, len(paths), size):
                yield torch.stack(list(islice(decoded, size))), labels[start : start + size]

    def for_testing(self, transform: TestTransform, size: int, rows: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource: from the cache of decoded images, which is filled at once.

        Raises:
            DataError: a picture cannot be read, or the cache not be written.
        """
        kept = self._kept(
            Request("test", transform.crop, asdict(replace(transform, views=1)), self._digests),
            lambda image: transform.pixels(image).permute(1, 2, 0),
        )
        wanted = torch.arange(len(self))[rows]
        batches = (wanted[start : start + size] for start in range(0, len(wanted), size))
        return ((kept.images.take(each).permute(0, 3, 1, 2).contiguous(), self.labels[each]) for each in batches)

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """See ImageSource: squashed to a square of `augmentation.store` pixels, from the cache of decoded images.

        Raises:
            DataError: a picture cannot be read, or the cache not be written.
        """
        side = augmentation.store or augmentation.size
        kept = self._kept(
            Request("training", side, {"squash": "bilinear"}, self._digests),
            lambda image: to_tensor(image.resize((side, side), Image.Resampling.BILINEAR)).permute(1, 2, 0),
        )
        return TrainingImages(kept.images.tensor, kept.values, self.labels, kept.images)

    def digests(self) -> list[str]:
        """See ImageSource. The files are read once, whenever that is."""
        return list(self._digests)

    def lots(self) -> list[str]:
        """See ImageSource."""
        return [name_digest(path) for path in self.paths]

    @cached_property
    def _digests(self) -> tuple[str, ...]:
        return tuple(count_passing(in_order(_file_digest, self.paths), "reading", len(self)))

    def _kept(self, request: Request, shape: Callable[[Image.Image], Tensor]) -> Entry:
        """The pictures as `shape` makes them, (S, S, 3) uint8."""

        def work(item: tuple[Path, str]) -> tuple[Tensor, float]:
            path, digest = item
            image = open_rgb(path)
            pixels = shape(image)
            # What is kept has to be the pixels of the very file that it is kept for.
            if _file_digest(path) != digest:
                raise DataError(f"{path}: it was changed while it was read; try again")
            return pixels, image.width / image.height

        def decode() -> Generator[tuple[Tensor, float], None, None]:
            return in_order(work, zip(self.paths, self._digests, strict=True))

        return keep(request, decode)


def _file_digest(path: Path) -> str:
    with open_file(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise PictureError(path, f"cannot be read ({error.strerror or error})") from None
