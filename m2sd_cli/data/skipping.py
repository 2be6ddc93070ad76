"""Leaving out the images that cannot be read."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from m2sd_cli.data.datasets import DataSet, Shots, Skipped
from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.names import relative_name
from m2sd_cli.data.sources import FileImages, ImageSource, select_where
from m2sd_cli.data.threads import in_order
from m2sd_cli.errors import DataError, ImageError
from m2sd_cli.progress import count_passing, say

NAMED = 3  # skipped images in a message

# A function from paths of images to the reason why each one cannot be read; None for an image that can.
Check = Callable[[Sequence[Path]], Sequence[str | None]]


def check_images(paths: Sequence[Path]) -> list[str | None]:
    """Read every image as a whole, in threads; see `Check`."""
    return list(count_passing(in_order(_reason, paths), "checking", len(paths)))


def say_skipped(skipped: Sequence[Skipped]) -> None:
    """Report how many images were left out, if any, and the first of them."""
    if skipped:
        count = len(skipped)
        subject = "1 image cannot be read and is" if count == 1 else f"{count} images cannot be read and are"
        named = "; ".join(f"{each.file} ({each.reason})" for each in skipped[:NAMED])
        more = f"; and {count - NAMED} more" if count > NAMED else ""
        say(f"{subject} left out: {named}{more}")


def _reason(path: Path) -> str | None:
    try:
        open_rgb(path)
    except ImageError as error:
        return error.reason
    return None


def skip_bad_images(data: DataSet, check: Check) -> DataSet:
    """Leave out the images of a data set that cannot be read.

    Raises:
        DataError: no image of a base class is left.
    """
    return leave_out(data, _unreadable([data.train, data.test], data.location, check))


def skip_bad_tests(data: DataSet, check: Check) -> tuple[DataSet, Sequence[Skipped]]:
    """Leave out the images for testing that cannot be read, and return their list, too."""
    skipped = _unreadable([data.test], data.location, check)
    return leave_out(data, [*data.skipped, *skipped]), skipped


def skip_bad_shots(shots: Shots, folder: Path, check: Check) -> Shots:
    """Leave out the shots that cannot be read.

    Args:
        folder: below which the shots lie.

    Raises:
        DataError: no image of a class is left.
    """
    return leave_out_shots(shots, folder, _unreadable([shots.source], folder, check))


def leave_out_shots(shots: Shots, folder: Path, skipped: Sequence[Skipped]) -> Shots:
    """Leave out the skipped images from shots; a skipped file that is no shot is ignored.

    Raises:
        DataError: no image of a class is left.
    """
    source = _without(shots.source, folder, {each.file for each in skipped})
    _refuse_empty(source, shots.classes, folder)
    return replace(shots, source=source, skipped=skipped)


def leave_out(data: DataSet, skipped: Sequence[Skipped]) -> DataSet:
    """Leave out the skipped images from a data set; a skipped file that is not in it is ignored.

    Raises:
        DataError: no image of a base class is left.
    """
    if not skipped:
        return data
    files = {each.file for each in skipped}
    train, test = (_without(source, data.location, files) for source in (data.train, data.test))
    _refuse_empty(train, data.classes[: data.base], data.location)
    return replace(data, train=train, test=test, skipped=skipped)


def _unreadable(sources: Iterable[ImageSource], folder: Path, check: Check) -> list[Skipped]:
    """List the images that cannot be read; images in memory always can."""
    paths = [path for source in sources if isinstance(source, FileImages) for path in source.paths]
    reasons = zip(paths, check(paths), strict=True)
    return [Skipped(relative_name(path, folder), reason) for path, reason in reasons if reason is not None]


def _without(source: ImageSource, folder: Path, files: Collection[str]) -> ImageSource:
    if not isinstance(source, FileImages):
        return source
    return select_where(
        source, torch.tensor([relative_name(path, folder) not in files for path in source.paths]).bool()
    )


def _refuse_empty(source: ImageSource, names: Sequence[str], folder: Path) -> None:
    counts = source.labels.bincount(minlength=len(names)).tolist()
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise DataError(f"{folder}: no image of class {name!r} can be read; add images, or take the class out")
