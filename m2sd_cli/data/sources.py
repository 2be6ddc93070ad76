"""Labelled sets of images, in memory and in files."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image, ImageOps
from torch import Tensor

from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.decoded import Entry, Request, load_or_decode
from m2sd_cli.data.deep_grey import Scales
from m2sd_cli.data.image_files import open_file
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.mapped import MappedImages
from m2sd_cli.data.names import name_digest
from m2sd_cli.data.threads import in_order
from m2sd_cli.data.transforms import TestTransform, to_tensor
from m2sd_cli.errors import DataError, ImageError
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
        """Gather images, aspects and labels at `indices` (B,), which are on the device of the images."""
        images = self.images.index_select(0, indices) if self.mapped is None else self.mapped.take(indices)
        return images, self.aspects.index_select(0, indices), self.labels.index_select(0, indices)

    def to(self, device: torch.device) -> "TrainingImages":
        """Move the images to a device; those that are there already, in a file too, are not copied."""
        if self.images.device.type == device.type == "cpu":
            return self
        images = self.images.to(device) if self.mapped is None else self.mapped.to(device)
        return TrainingImages(images, self.aspects.to(device), self.labels.to(device))


class ImageSource(Protocol):
    """N images with labels, which can be read again and again, never more than a batch at a time."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor, labels: Tensor) -> "ImageSource":
        """Select the images at `indices` (M,) int64, under new labels (M,) int64."""

    def batches(self, transform: TestTransform, size: int, shard: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels after the test transform, uint8 (B, 3, crop, crop), and labels, int64 (B,), in order.

        Args:
            transform: of each image.
            size: B; the last batch may be smaller.
            shard: the consecutive images to read.
        """

    def for_testing(self, transform: TestTransform, size: int, shard: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same as `batches`, of images that will be read again: decoded images are cached."""

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """Return every image in the size that the augmentation takes."""

    def digests(self) -> list[str]:
        """Compute the SHA-256 of each image: of its pixels in memory, of its file on disk."""

    def sort_keys(self) -> list[str]:
        """Compute a SHA-256 for each image, by which images are chosen.

        It is of the pixels in memory, and of a file's bare name on disk, so that no file is read for it.
        """


def select_where(source: ImageSource, mask: Tensor) -> ImageSource:
    """Select the images at which a mask (N,) bool is true, in their order, under their labels."""
    indices = mask.nonzero().flatten()
    return source.select(indices, source.labels[indices])


@dataclass(frozen=True)
class ArrayImages:
    """Small images in memory, all of one size."""

    images: Tensor  # (N, H, W, 3) uint8
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor, labels: Tensor) -> "ArrayImages":
        """See ImageSource."""
        return ArrayImages(self.images[indices], labels)

    def batches(self, transform: TestTransform, size: int, shard: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource. Images with sides of `transform.crop` pixels are taken as they are."""
        fits = self.images.shape[1:3] == (transform.crop, transform.crop)
        images, labels = self.images[shard], self.labels[shard]
        for start in range(0, len(labels), size):
            batch = images[start : start + size]
            if fits:
                pixels = batch.permute(0, 3, 1, 2)
            else:
                pixels = torch.stack([transform.pixels(Image.fromarray(image.numpy())) for image in batch])
            yield pixels, labels[start : start + size]

    for_testing = batches

    def for_training(self, augmentation: Augmentation) -> TrainingImages:  # noqa: ARG002 (of the protocol)
        """See ImageSource."""
        return TrainingImages(self.images, torch.ones(len(self)), self.labels)

    def digests(self) -> list[str]:
        """See ImageSource."""
        return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in self.images]

    sort_keys = digests


@dataclass(frozen=True)
class FileImages:
    """Image files of any size, decoded when they are needed."""

    paths: tuple[Path, ...]
    labels: Tensor  # (N,) int64

    @classmethod
    def from_items(cls, items: Iterable[tuple[Path, int]]) -> "FileImages":
        """Make a source of pairs (path, label)."""
        listed = list(items)
        return cls(tuple(path for path, _ in listed), torch.tensor([label for _, label in listed], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Tensor, labels: Tensor) -> "FileImages":
        """See ImageSource. A selection has a cache entry of its own, so that a training reads no other images."""
        return FileImages(tuple(self.paths[index] for index in indices.tolist()), labels)

    def batches(self, transform: TestTransform, size: int, shard: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource. The next batch is decoded while the caller works on the one before.

        Raises:
            DataError: an image cannot be read.
        """
        paths, labels = self.paths[shard], self.labels[shard]
        scales = Scales()
        decode = in_order(lambda path: transform.pixels(scales.note(open_rgb(path))), paths, ahead=size)
        with closing(decode) as decoded:
            for start in range(0, len(paths), size):
                yield torch.stack(list(islice(decoded, size))), labels[start : start + size]
        if shard == ALL:  # a shard is of images that were read as a whole before, and reported then
            scales.say()

    def for_testing(self, transform: TestTransform, size: int, shard: slice = ALL) -> Iterator[tuple[Tensor, Tensor]]:
        """See ImageSource: from the cache of decoded images, which is filled at once.

        Raises:
            DataError: an image cannot be read, or the cache not be written.
        """
        request = Request("test", transform.crop, asdict(replace(transform, views=1)), self._digests)
        entry = self._load(request, transform.pixels)
        indices = torch.arange(len(self))[shard]
        batches = (indices[start : start + size] for start in range(0, len(indices), size))
        return ((entry.images.take(batch).permute(0, 3, 1, 2).contiguous(), self.labels[batch]) for batch in batches)

    def for_training(self, augmentation: Augmentation) -> TrainingImages:
        """See ImageSource: squares of `augmentation.store` pixels, from the cache of decoded images.

        An image is squashed for a resized crop, which undoes it. For a crop of the whole its middle is cut out.

        Raises:
            DataError: an image cannot be read, or the cache not be written.
        """
        side = augmentation.store or augmentation.size
        squash = augmentation.padding is None

        def prepare(image: Image.Image) -> Tensor:
            how = Image.Resampling.BILINEAR
            return to_tensor(image.resize((side, side), how) if squash else ImageOps.fit(image, (side, side), how))

        entry = self._load(
            Request("training", side, {"squash" if squash else "crop": "bilinear"}, self._digests), prepare
        )
        return TrainingImages(entry.images.tensor, entry.values, self.labels, entry.images)

    def digests(self) -> list[str]:
        """See ImageSource. The files are read at the first call alone."""
        return list(self._digests)

    def sort_keys(self) -> list[str]:
        """See ImageSource."""
        return [name_digest(path) for path in self.paths]

    @cached_property
    def _digests(self) -> tuple[str, ...]:
        return tuple(count_passing(in_order(_file_digest, self.paths), "reading", len(self)))

    def _load(self, request: Request, shape: Callable[[Image.Image], Tensor]) -> Entry:
        """Load the images, of which `shape` makes (3, S, S) uint8, from the cache, which is filled first."""
        scales = Scales()

        def decode_one(item: tuple[Path, str]) -> tuple[Tensor, float]:
            path, digest = item
            image = scales.note(open_rgb(path))
            pixels = shape(image)
            # The cached pixels have to be those of the very file whose digest is their key.
            if _file_digest(path) != digest:
                raise DataError(f"{path}: it was changed while it was read; try again")
            return pixels.permute(1, 2, 0), image.width / image.height

        def decode() -> Generator[tuple[Tensor, float], None, None]:
            return in_order(decode_one, zip(self.paths, self._digests, strict=True))

        entry = load_or_decode(request, decode)
        scales.say()
        return entry


def find_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Find files by their SHA-256; files that cannot be read are left out."""

    def digest(path: Path) -> str | None:
        try:
            return _file_digest(path)
        except ImageError:
            return None

    digests = count_passing(in_order(digest, paths), "reading", len(paths))
    return {sha256: path for sha256, path in zip(digests, paths, strict=True) if sha256 is not None}


def _file_digest(path: Path) -> str:
    with open_file(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ImageError(path, f"cannot be read ({error.strerror or error})") from None
