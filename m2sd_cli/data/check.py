"""A check that reads a whole data set once and tells all its faults before a long training."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from m2sd_cli.data.catalogue import find_info
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.deep_grey import SCALE, describe_scales
from m2sd_cli.data.folders import Layout, folder_name, scan_folder
from m2sd_cli.data.images import FULL_SIZE, open_rgb
from m2sd_cli.data.left_out import LeftOut
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.names import relative_name
from m2sd_cli.data.remarks import on_sizes
from m2sd_cli.data.sources import ArrayImages, FileImages, ImageSource
from m2sd_cli.data.threads import in_order
from m2sd_cli.errors import ImageError
from m2sd_cli.progress import count_passing


@dataclass(frozen=True)
class ClassCount:
    """The numbers of images of a class."""

    name: str
    training: int
    test: int


@dataclass(frozen=True)
class Size:
    """The width and height of an image, in pixels."""

    file: str | None  # below the folder; None of images in memory, which are all of one size
    width: int
    height: int


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read."""

    file: str  # below the folder
    reason: str


@dataclass(frozen=True)
class Summary:
    """The counts, faults and oddities of a data set; for its faults a training would refuse it."""

    name: str
    classes: int
    base_classes: int
    training_images: int
    test_images: int
    sessions: int
    class_counts: list[ClassCount]
    smallest: Size | None  # by the number of pixels
    largest: Size | None
    faults: list[str]
    unreadable: list[Unreadable]
    left_out: list[LeftOut]
    remarks: list[str]
    repeated_within_class: list[list[str]]  # names of equal images
    repeated_across_classes: list[list[str]]
    repeated_in_training_and_test: list[list[str]]

    @property
    def is_refused(self) -> bool:
        """Tell if a training or an evaluation would refuse the data set."""
        return bool(self.faults or self.unreadable)


@dataclass(frozen=True)
class _Image:
    """An image of a data set: a file, or an image in memory with its digest and size."""

    name: str
    class_name: str
    is_test: bool
    path: Path | None
    digest: str = ""
    size: tuple[int, int] | None = None


class _Reading(NamedTuple):
    """The upright size of an image file and the scale of its deep grey, or the reason why it cannot be read."""

    size: tuple[int, int] | None = None
    scale: str | None = None
    reason: str | None = None


def check(name: str, data_root: Path | None = None) -> Summary:
    """Read every image of a built-in data set or a folder, and gather its faults.

    Raises:
        UsageError: there is no such data set and no such folder.
        DataError: a built-in data set is not there or its lists are damaged, or a folder cannot be read at all.
    """
    return (
        check_data(open_data(name, data_root)) if find_info(name, source="") is not None else check_folder(Path(name))
    )


def check_data(data: DataSet) -> Summary:
    """Read every image of a data set that could be opened, and gather its faults."""
    images = [*_images(data.train, data.classes, data.location, "training image")]
    for number in range(1, data.sessions + 1):
        shots = data.session(number)
        images += _images(shots.source, shots.classes, data.location, f"session {number}, shot")
    images += _images(data.test, data.classes, data.location, "test image", is_test=True)
    trained, tested = (
        source.labels.bincount(minlength=len(data.classes)).tolist() for source in (data.train, data.test)
    )
    counts = list(map(ClassCount, data.classes, trained, tested))
    return _summarise(Layout({}, {}, [], [], []), images, data.name, counts, data.base, data.sessions)


def check_folder(folder: Path) -> Summary:
    """Read every image of a folder that `open_folder` would take, and gather its faults.

    Raises:
        DataError: the folder is missing, or cannot be read at all.
    """
    layout = scan_folder(folder)
    images = [
        _Image(relative_name(path, folder), name, is_test, path)
        for is_test, classes in ((False, layout.train), (True, layout.test))
        for name, paths in classes.items()
        for path in paths
    ]
    counts = [
        ClassCount(each, len(layout.train.get(each, ())), len(layout.test.get(each, ()))) for each in layout.classes
    ]
    if len(layout.train) == 1:
        layout.faults.append(f"{folder}: 1 base class; at least two are needed, a folder each")
    return _summarise(layout, images, folder_name(folder), counts, len(layout.train), 0)


def _images(
    source: ImageSource, classes: Sequence[str], folder: Path, called: str, is_test: bool = False
) -> Iterator[_Image]:
    names = [classes[label] for label in source.labels.tolist()]
    if isinstance(source, FileImages):
        for path, name in zip(source.paths, names, strict=True):
            yield _Image(relative_name(path, folder), name, is_test, path)
        return
    size = (source.images.shape[2], source.images.shape[1]) if isinstance(source, ArrayImages) else None
    for number, (name, digest) in enumerate(zip(names, source.digests(), strict=True)):
        yield _Image(f"{called} {number}", name, is_test, None, digest, size)


def _summarise(
    layout: Layout, images: Sequence[_Image], name: str, counts: list[ClassCount], base: int, sessions: int
) -> Summary:
    """Read the files among the images, each once, and make the summary."""
    images = sorted(images, key=lambda each: each.name)
    files = {each.path: each for each in images if each.path is not None}
    read = dict(zip(files, count_passing(in_order(_read, files), "checking", len(files)), strict=True))
    unreadable = [Unreadable(files[path].name, each.reason) for path, each in read.items() if each.reason is not None]
    sizes = [Size(files[path].name, *each.size) for path, each in read.items() if each.size is not None]
    sizes += {each.size: Size(None, *each.size) for each in images if each.path is None and each.size}.values()
    scales = Counter(each.scale for each in read.values() if each.scale is not None)
    repeated = _group_equal(images, {path for path, each in read.items() if each.reason is None})
    classes = [{each.class_name for each in group} for group in repeated]
    parts = [{each.is_test for each in group} for group in repeated]
    named = [[each.name for each in group] for group in repeated]
    return Summary(
        name=name,
        classes=len(counts),
        base_classes=base,
        training_images=sum(each.training for each in counts),
        test_images=sum(each.test for each in counts),
        sessions=sessions,
        class_counts=counts,
        smallest=min(sizes, key=lambda each: each.width * each.height, default=None),
        largest=max(sizes, key=lambda each: each.width * each.height, default=None),
        faults=layout.faults,
        unreadable=unreadable,
        left_out=[each for part in layout.parts for each in part.left_out],
        remarks=[
            *layout.remarks,
            *(f"{path}: a run folder, and no class" for part in layout.parts for path in part.run_folders),
            *(on_sizes({each.name: (each.training, each.test) for each in counts}) if not sessions and counts else ()),
            *describe_scales(scales),
        ],
        repeated_within_class=[group for group, names in zip(named, classes, strict=True) if len(names) == 1],
        repeated_across_classes=[group for group, names in zip(named, classes, strict=True) if len(names) > 1],
        repeated_in_training_and_test=[group for group, both in zip(named, parts, strict=True) if len(both) > 1],
    )


def _read(path: Path) -> _Reading:
    try:
        image = open_rgb(path)
    except ImageError as error:
        return _Reading(reason=error.reason)
    return _Reading(image.info[FULL_SIZE], image.info.get(SCALE))


def _group_equal(images: Sequence[_Image], readable: Collection[Path]) -> list[list[_Image]]:
    """Group images of equal content, at least two in a group; only files that share their size are read."""
    sizes = {path: os.stat(path).st_size for path in readable}
    count = Counter(sizes.values())
    alike = [path for path, size in sizes.items() if count[size] > 1]
    source = FileImages.from_items((path, 0) for path in alike)
    digests = dict(zip(alike, source.digests(), strict=True))
    groups: dict[str, dict[str, _Image]] = {}
    for each in images:
        digest = each.digest if each.path is None else digests.get(each.path)
        if digest:
            groups.setdefault(digest, {})[each.name] = each
    return [list(group.values()) for group in groups.values() if len(group) > 1]
