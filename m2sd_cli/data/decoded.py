"""One entry of decoded images: built once from its files, then mapped into memory by whoever needs it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import PIL.features
import torch
from torch import Tensor

from m2sd_cli.data.cache import (
    CACHE_VARIABLE,
    RECORD,
    as_size,
    cache_folder,
    locked,
    read_record,
    sweep,
    unfinished,
)
from m2sd_cli.data.mapped import MappedImages, npy_header
from m2sd_cli.errors import DataError
from m2sd_cli.progress import Pass
from m2sd_cli.reading import read_regular

FORMAT = 2  # to be raised when the same files would give other pixels, or an entry other files
IMAGES = "images.npy"


@dataclass(frozen=True)
class Column:
    """One number beside each image of an entry."""

    file: str
    kind: type[np.generic]
    least: float  # what a value has to be above, and finite


ASPECTS = Column("aspects.npy", np.float32, 0)  # how wide the picture was for its height
LABELS = Column("labels.npy", np.int64, -1)


@dataclass(frozen=True)
class Request:
    """Everything that decides the pixels of an entry."""

    use: Literal["training", "test"]
    side: int  # of each image, in pixels
    settings: Mapping[str, object]  # of what is done to a picture
    digests: Sequence[str]  # SHA-256 of each file, in order
    images: int | None = None  # in these files; None for one in each
    column: Column = ASPECTS

    @cached_property
    def key(self) -> str:
        """The SHA-256 of it all, of the format, and of the libraries that decode."""
        decoders = [PIL.__version__, *map(PIL.features.version, ("libjpeg_turbo", "jpg", "webp"))]
        words = [FORMAT, self.use, *self.shape, self.column.file, dict(self.settings), decoders, list(self.digests)]
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the images."""
        return (len(self.digests) if self.images is None else self.images, self.side, self.side, 3)


@dataclass(frozen=True)
class Entry:
    """Decoded images, and the number beside each."""

    images: MappedImages  # (N, S, S, 3) uint8
    values: Tensor  # (N,) of the column's type


def keep(request: Request, decode: Callable[[], Generator[tuple[Tensor, float], None, None]]) -> Entry:
    """The entry of a request, built first if it is not there or damaged. Two processes build it once.

    Args:
        request: what is wanted.
        decode: begins to decode the images, to (S, S, 3) uint8 and the column's number, in the order of the request.

    Raises:
        DataError: the cache cannot be written, or a picture cannot be read. Nothing is left behind.
    """
    place = cache_folder()
    found = _find(place / request.key, request)
    if found is not None:
        return found
    try:
        place.mkdir(parents=True, exist_ok=True)
        with locked(place, request.key):
            found = _find(place / request.key, request)  # somebody may have built it meanwhile
            if found is not None:
                return found
            sweep(place, request.key)
            if (place / request.key).exists():
                shutil.rmtree(place / request.key)
            needed, free = int(np.prod(request.shape)), shutil.disk_usage(place).free
            if needed > free:
                raise _refused(place, f"needs {as_size(needed)} for the decoded images, and {as_size(free)} are free")
            with closing(decode()) as decoded:
                _build(place / request.key, unfinished(place, request.key), request, decoded)
            return _read(place / request.key, request)
    except OSError as error:
        raise _refused(place, f"decoded images cannot be kept there ({error.strerror or error})") from None


def _refused(place: Path, why: str) -> DataError:
    return DataError(
        f"{place}: {why}; free some space, as with 'm2sd data clear', or name a place in ${CACHE_VARIABLE}"
    )


def _find(folder: Path, request: Request) -> Entry | None:
    try:
        return _read(folder, request)
    except (OSError, ValueError):
        return None


def _read(folder: Path, request: Request) -> Entry:
    """Open a finished entry.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is damaged.
    """
    if read_record(folder) != _record(request):
        raise ValueError(f"{folder}: another entry")
    column = request.column
    header = npy_header(column.kind, request.shape[:1])
    size = len(header) + np.dtype(column.kind).itemsize * request.shape[0]
    content = read_regular(folder / column.file, size)
    if not content.startswith(header) or len(content) != size:
        raise ValueError(f"{folder}: not a number for every image in {column.file}")
    values = np.frombuffer(content, column.kind, offset=len(header)).copy()
    if not (np.isfinite(values) & (values > column.least)).all():
        raise ValueError(f"{folder}: a number that no image has in {column.file}")
    return Entry(MappedImages(folder / IMAGES, request.shape), torch.from_numpy(values))


def _build(folder: Path, temporary: Path, request: Request, decoded: Iterable[tuple[Tensor, float]]) -> None:
    try:
        temporary.mkdir()
        values = np.empty(request.shape[0], request.column.kind)
        decoding = Pass("decoding", request.shape[0])
        with (temporary / IMAGES).open("wb") as file:
            file.write(npy_header(np.uint8, request.shape))
            # Written and not mapped: a mapped page that finds the disk full would end the process.
            for number, (image, value) in enumerate(decoded):
                file.write(image.numpy().tobytes())
                values[number] = value
                decoding.add()
            _flush(file)
        with (temporary / request.column.file).open("wb") as file:
            file.write(npy_header(request.column.kind, values.shape) + values.tobytes())
            _flush(file)
        with (temporary / RECORD).open("wb") as file:
            file.write(json.dumps(_record(request)).encode())
            _flush(file)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _record(request: Request) -> dict[str, object]:
    return {"format": FORMAT, "use": request.use, "images": request.shape[0], "side": request.side}
