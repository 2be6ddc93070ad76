"""An entry of the cache of decoded images: built once from its files, then mapped into memory."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.features
import torch
from torch import Tensor

from m2sd_cli.data.cache import (
    CACHE_VARIABLE,
    RECORD,
    as_size,
    cache_folder,
    entry_lock,
    read_record,
    sweep,
    unfinished_folder,
)
from m2sd_cli.data.mapped import MappedImages, npy_header
from m2sd_cli.errors import DataError
from m2sd_cli.progress import count_passing
from m2sd_cli.reading import read_regular

FORMAT = 3  # to be raised when the same files would give other pixels, or an entry other files
IMAGES = "images.npy"


@dataclass(frozen=True)
class Column:
    """The numbers beside the images of an entry, one for each image."""

    file: str
    dtype: type[np.generic]
    above: float  # each number is finite and greater than this


ASPECTS = Column("aspects.npy", np.float32, 0)  # width / height of the image in its file
LABELS = Column("labels.npy", np.int64, -1)


@dataclass(frozen=True)
class Request:
    """The decoded images that are asked for, by the facts that decide their pixels."""

    use: Literal["training", "test"]
    side: int  # of each image, in pixels
    settings: Mapping[str, object]  # of the transform of an image
    digests: Sequence[str]  # SHA-256 of each file, in order
    images: int | None = None  # in these files; None for one in each
    column: Column = ASPECTS

    @cached_property
    def key(self) -> str:
        """The SHA-256 of the request, of the format, and of the libraries that decode."""
        decoders = [PIL.__version__, *map(PIL.features.version, ("libjpeg_turbo", "jpg", "webp", "libtiff"))]
        words = [FORMAT, self.use, *self.shape, self.column.file, dict(self.settings), decoders, list(self.digests)]
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the images, (N, S, S, 3)."""
        return (len(self.digests) if self.images is None else self.images, self.side, self.side, 3)


@dataclass(frozen=True)
class Entry:
    """Decoded images, with a number beside each image."""

    images: MappedImages  # (N, S, S, 3) uint8
    values: Tensor  # (N,) of the column's type


def load_or_decode(request: Request, decode: Callable[[], Generator[tuple[Tensor, float], None, None]]) -> Entry:
    """Load the entry of a request; build it first if it is absent or damaged. Two processes build it once.

    Args:
        decode: returns a generator of each image, (S, S, 3) uint8, and its number, in the order of the request.

    Raises:
        DataError: the cache cannot be written, or an image cannot be read. Nothing is left behind.
    """
    cache = cache_folder()
    folder = cache / request.key
    with suppress(OSError, ValueError):
        return _read(folder, request)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with entry_lock(cache, request.key):
            with suppress(OSError, ValueError):
                return _read(folder, request)  # which another process has built meanwhile
            sweep(cache, request.key)
            if folder.exists():
                shutil.rmtree(folder)
            needed, free = int(np.prod(request.shape)), shutil.disk_usage(cache).free
            if needed > free:
                raise _refused(cache, f"needs {as_size(needed)} for the decoded images, and {as_size(free)} are free")
            with closing(decode()) as decoded:
                _build(folder, unfinished_folder(cache, request.key), request, decoded)
            return _read(folder, request)
    except OSError as error:
        raise _refused(cache, f"decoded images cannot be kept there ({error.strerror or error})") from None


def _refused(cache: Path, why: str) -> DataError:
    return DataError(
        f"{cache}: {why}; free some space, as with 'm2sd data clear', or name a place in ${CACHE_VARIABLE}"
    )


def _read(folder: Path, request: Request) -> Entry:
    """Open a finished entry.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is damaged.
    """
    if read_record(folder) != _record(request):
        raise ValueError(f"{folder}: another entry")
    column = request.column
    header = npy_header(column.dtype, request.shape[:1])
    size = len(header) + np.dtype(column.dtype).itemsize * request.shape[0]
    content = read_regular(folder / column.file, size)
    if not content.startswith(header) or len(content) != size:
        raise ValueError(f"{folder}: not a number for every image in {column.file}")
    values = np.frombuffer(content, column.dtype, offset=len(header)).copy()
    if not (np.isfinite(values) & (values > column.above)).all():
        raise ValueError(f"{folder}: a number that no image has in {column.file}")
    return Entry(MappedImages(folder / IMAGES, request.shape), torch.from_numpy(values))


def _build(folder: Path, temporary: Path, request: Request, decoded: Iterable[tuple[Tensor, float]]) -> None:
    values = np.empty(request.shape[0], request.column.dtype)

    def images() -> Iterator[bytes]:
        yield npy_header(np.uint8, request.shape)
        for number, (image, value) in enumerate(count_passing(decoded, "decoding", request.shape[0])):
            values[number] = value
            yield image.numpy().tobytes()

    try:
        temporary.mkdir()
        # Written and not mapped: a mapped page that finds the disk full would end the process.
        _write(temporary / IMAGES, images())
        _write(temporary / request.column.file, [npy_header(request.column.dtype, values.shape), values.tobytes()])
        _write(temporary / RECORD, [json.dumps(_record(request)).encode()])
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _record(request: Request) -> dict[str, object]:
    return {"format": FORMAT, "use": request.use, "images": request.shape[0], "side": request.side}
