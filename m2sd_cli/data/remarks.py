"""Remarks on a folder of images that can be used, but perhaps not as the person meant it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.names import relative_name
from m2sd_cli.data.sources import FileImages

if TYPE_CHECKING:
    from pathlib import Path

FEW = 10  # images of a class
UNEVEN = 20  # times as many images of one class as of another
NAMED = 3  # classes or pairs of images in a remark


def remarks(data: DataSet) -> list[str]:
    """List the oddities of a folder, each in one line: few images, uneven classes, repeated images.

    Every file is read as a whole for its SHA-256.
    """
    trained, tested = (
        source.labels.bincount(minlength=len(data.classes)).tolist() for source in (data.train, data.test)
    )
    counts = dict(zip(data.classes, zip(trained, tested, strict=True), strict=True))
    return [*on_sizes(counts), *_on_copies(data)]


def on_sizes(counts: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """Yield the oddities of the numbers of images of each class, for training and for testing."""
    sizes = {name: sum(each) for name, each in counts.items()}
    few = [f"{name} ({size})" for name, size in sizes.items() if size < FEW]
    if few:
        yield f"few photos: {_first(few)}; a class is known better from {FEW} or more"
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    if sizes[largest] >= UNEVEN * sizes[smallest]:
        yield f"uneven classes: {largest} has {sizes[largest]} photos, {smallest} has {sizes[smallest]}"
    untested = [name for name, (_, tested) in counts.items() if not tested]
    if untested:
        yield f"no photo to test with: {_first(untested)}"


def _on_copies(data: DataSet) -> Iterator[str]:
    first: dict[str, tuple[Path, str]] = {}
    within: list[str] = []
    across: list[str] = []
    for source in (data.train, data.test):
        assert isinstance(source, FileImages)
        names = [data.classes[label] for label in source.labels.tolist()]
        for path, name, digest in zip(source.paths, names, source.digests(), strict=True):
            if digest in first:
                original, other = first[digest]
                pair = " and ".join(relative_name(each, data.location) for each in (original, path))
                (within if name == other else across).append(pair)
            first.setdefault(digest, (path, name))
    if across:
        yield f"the same photo in two classes: {_first(across)}"
    if within:
        yield f"the same photo twice: {_first(within)}"


def _first(items: Sequence[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more
