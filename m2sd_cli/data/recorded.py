"""The recorded images of a folder, and the images that are new, gone or changed since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.names import relative_name
from m2sd_cli.data.sources import FileImages, ImageSource
from m2sd_cli.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

NAMED = 10  # files in a message

Files = Mapping[str, str | None]  # SHA-256 by the name below the folder; None of an image to test on


def list_files(data: DataSet) -> dict[str, str | None]:
    """List the images of a folder: for training, held out, and for testing; images in memory are not listed."""
    files: dict[str, str | None] = {}
    for source in (data.train, data.held_out):
        if isinstance(source, FileImages):
            names = (relative_name(path, data.location) for path in source.paths)
            files |= zip(names, source.digests(), strict=True)
    if isinstance(data.test, FileImages):
        files |= {relative_name(path, data.location): None for path in data.test.paths}
    return files


@dataclass(frozen=True)
class Changes:
    """The differences between a folder and its record, by the names of files below it."""

    new: list[str]
    gone: list[str]
    changed: list[str]

    def describe(self) -> str:
        """Name the first files of each kind with their number, and the way out if all recorded files are there."""
        kinds = [("new", self.new), ("gone", self.gone), ("changed", self.changed)]
        parts = [f"{len(files)} {kind}: {_named(files)}" for kind, files in kinds if files]
        if self.new and not self.gone and not self.changed:
            parts.append("--ignore-new goes on with the recorded ones")
        return "; ".join(parts)


def _named(files: Sequence[str]) -> str:
    return ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")


def find_changes(data: DataSet, recorded: Files) -> Changes:
    """Compare the images of a folder with the recorded ones; the record decides which of them are trained on."""
    found = list_files(data)
    new = sorted(name for name in found if name not in recorded)
    gone = sorted(name for name in recorded if name not in found)
    moved = [name for name in found.keys() & recorded.keys() if found[name] is None and recorded[name] is not None]
    sources = [source for source in (data.test,) if isinstance(source, FileImages)]
    paths = {relative_name(path, data.location): path for source in sources for path in source.paths}
    rehashed = FileImages.from_items((paths[name], 0) for name in moved).digests()
    known = found | dict(zip(moved, rehashed, strict=True))
    changed = sorted(name for name in known.keys() & recorded.keys() if recorded[name] not in (None, known[name]))
    return Changes(new, gone, changed)


def only_recorded(data: DataSet, recorded: Files) -> DataSet:
    """Leave out the images that are not recorded; the others get the parts that the record has.

    Args:
        data: with all its images for training, before some are held out.
        recorded: of `list_files`.

    Raises:
        DataError: a recorded image is missing; the message names it.
    """
    items: dict[str, tuple[Path, int]] = {}
    for source in (data.train, data.test):
        if isinstance(source, FileImages):
            for path, label in zip(source.paths, source.labels.tolist(), strict=True):
                items[relative_name(path, data.location)] = path, label
    gone = sorted(name for name in recorded if name not in items)
    if gone:
        raise DataError(
            f"{data.location}: {len(gone)} of the recorded images gone: {_named(gone)}; put them back, or train anew"
        )
    trained = sorted({items[name][1] for name, sha256 in recorded.items() if sha256 is not None})
    kept = [*trained, *sorted({items[name][1] for name in recorded}.difference(trained))]  # base classes come first
    place = {label: number for number, label in enumerate(kept)}

    def source_of(trained: bool) -> ImageSource:
        chosen = [items[name] for name in items if name in recorded and (recorded[name] is not None) == trained]
        if data.listed is None:  # new images may have moved others from one part to the other
            chosen.sort(key=lambda item: (item[1], item[0]))
        return FileImages.from_items((path, place[label]) for path, label in chosen)

    train, test = source_of(True), source_of(False)
    return replace(
        data,
        classes=[data.classes[label] for label in kept],
        base=len(torch.unique(train.labels)),
        train=train,
        test=test,
    )
