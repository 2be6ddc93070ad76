"""Benchmarks of image files that come with lists of their own, and whose official sessions name files."""

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import torch

from m2sd_cli.data.catalogue import DataSetInfo
from m2sd_cli.data.datasets import DataSet, Shots, Treatment
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import DataError, os_errors_as
from m2sd_cli.reading import quoted, read_regular

LIST_LIMIT = 64 * 2**20  # bytes of a list; those of CUB-200 and miniImageNet have 3 MB at most

Item = tuple[Path, int]  # the path and the label of an image


def read_lines(path: Path) -> list[str]:
    """Read the lines of a list.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    with os_errors_as(DataError, f"{path}: cannot be read"):
        content = read_regular(path, LIST_LIMIT)
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read (not UTF-8)") from None


def require_inside(name: str, path: Path, line: int) -> None:
    """Refuse the name of a file that would not lie below the data set's own folder on some system.

    Raises:
        DataError: the name leads elsewhere, or is that of no file.
    """
    parsed = PureWindowsPath(name)  # knows both slashes, and drives
    if parsed.anchor or ".." in parsed.parts or "\0" in name:
        raise DataError(
            f"{path}, line {line}: {quoted(repr(name))} is not the name of a file below the data set's folder"
        )


def open_listed(
    info: DataSetInfo,
    treatment: Treatment,
    home: Path,
    classes: list[str],
    train: Sequence[Item],
    test: Sequence[Item],
    keys: Sequence[str],
    sessions: Sequence[Sequence[str]],
) -> DataSet:
    """Make a data set of the images that its lists name.

    Args:
        train, test: images of all classes.
        keys: the name of each training image, as `sessions` has it.
        sessions: the official shots by their names.

    Raises:
        DataError: the number of classes is wrong.
    """
    if len(classes) != info.classes:
        raise DataError(
            f"{home}: {len(classes)} classes, not the {info.classes} of {info.name}; unpack the data set again"
        )
    source = FileImages.from_items(train)
    index = {key: number for number, key in enumerate(keys)}

    def session(number: int) -> Shots:
        shots = sessions[number - 1]
        for key in shots:
            if key not in index:
                raise DataError(
                    f"{home}: {key} of session {number} is not among its training images; unpack the data set again"
                )
        return Shots.select(source, torch.tensor([index[key] for key in shots]), classes)

    return DataSet.from_info(info, treatment, classes, source, FileImages.from_items(test), session, home)
