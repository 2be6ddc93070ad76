"""A folder that is divided by a list, each image by its path."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import torch

from m2sd_cli.data.datasets import DataSet, Shots, Skipped, Treatment
from m2sd_cli.data.folders import folder_name
from m2sd_cli.data.image_files import images_among, list_folder
from m2sd_cli.data.layout import require_folder
from m2sd_cli.data.names import as_pair, clash, class_name, is_text, relative_name
from m2sd_cli.data.skipping import leave_out
from m2sd_cli.data.sources import FileImages
from m2sd_cli.data.split_list import BASE, TEST, SplitList
from m2sd_cli.errors import DataError
from m2sd_cli.reading import quoted

NAMED = 3  # faults in a message


def open_fixed_split(folder: Path, listed: SplitList, treatment: Treatment, skipped: Sequence[Skipped] = ()) -> DataSet:
    """Open a folder that a list divides; the whole list is checked first.

    Classes have the names of the folders that their images lie in, and the order of the list.

    Args:
        folder: below which the paths of the list lie.
        listed: the list.
        treatment: of the images.
        skipped: images to leave out, which may be missing.

    Returns:
        The data set; its own list names every image, and no folder in place of its images.

    Raises:
        DataError: a path is missing, named twice or outside of the folder; or a class is taught twice or not at all.
    """
    require_folder(folder)
    faults: list[str] = []
    left_out = {each.file for each in skipped}
    parts: dict[str, list[Path]] = {}
    for part, names in listed.parts():
        found = [path for name in names for path in _images(folder, name, f"{quoted(repr(name))} of {part}", faults)]
        parts[part] = [path for path in found if _is_usable(path, folder, left_out, faults)]
    faults += _find_faults(parts)
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise DataError(f"--split: {'; '.join(faults[:NAMED])}{more}")
    classes = list(dict.fromkeys(_class_of(path) for paths in parts.values() for path in paths))
    label = {name: number for number, name in enumerate(classes)}
    sources = [FileImages.from_items((path, label[_class_of(path)]) for path in paths) for paths in parts.values()]
    train, *sessions, test = sources
    base, *taught, tested = (tuple(relative_name(path, folder) for path in paths) for paths in parts.values())

    def session(number: int) -> Shots:
        shots = sessions[number - 1]
        return Shots.select(shots, torch.arange(len(shots)), classes)

    data = DataSet(
        name=folder_name(folder),
        classes=classes,
        base=len(set(map(_class_of, parts[BASE]))),
        train=train,
        test=test,
        sessions=len(sessions),
        session=session,
        transform=treatment.transform,
        augmentation=treatment.augmentation,
        location=folder,
        listed=SplitList(base, tuple(taught), tested),
    )
    return leave_out(data, skipped)


def count_base(folder: Path, listed: SplitList) -> int:
    """Count the base classes of a folder that a list divides; faults of the list are left to `open_fixed_split`."""
    return len({_class_of(path) for name in listed.base for path in _images(folder, name, "", [])})


def _images(folder: Path, name: str, where: str, faults: list[str]) -> list[Path]:
    """List the image that a path names, or the images in a folder."""
    parsed = PureWindowsPath(name)  # knows both slashes, and drives
    if not name or parsed.anchor or ".." in parsed.parts or "\0" in name:
        faults.append(f"{where} is not the path of an image below the folder")
        return []
    path = folder / name
    if not os.path.isdir(path):
        return [path]
    found = sorted(images_among(list_folder(path)))
    if not found:
        faults.append(f"{where}: no image in it")
    return found


def _is_usable(path: Path, folder: Path, left_out: Collection[str], faults: list[str]) -> bool:
    """Tell if an image can be used; if it should be and cannot, add a fault."""
    if path.parent == folder:
        faults.append(f"{path}: it lies in no folder of a class")
    elif not is_text(path.name):
        faults.append(f"{path}: its name has to be UTF-8; rename it")
    elif os.path.isfile(path):
        return True
    elif relative_name(path, folder) not in left_out:
        faults.append(f"{path}: no such file")
    return False


def _class_of(path: Path) -> str:
    return class_name(path.parent.name)


def _find_faults(parts: Mapping[str, Sequence[Path]]) -> list[str]:
    """List the faults of images and classes in two parts, and of classes that are tested and never taught."""
    faults = []
    seen: dict[Path, str] = {}
    taught: dict[str, str] = {}
    for name, paths in parts.items():
        for path in paths:
            if path in seen:
                faults.append(f"{path}: there twice, in {seen[path]} and in {name}")
            seen[path] = name
        for each in dict.fromkeys(map(_class_of, paths)):
            if name != TEST and each in taught:
                faults.append(f"the class {quoted(repr(each))} is in {taught[each]} and in {name}")
            elif name == TEST and each not in taught:
                faults.append(f"the class {quoted(repr(each))} is tested, and never taught")
            taught.setdefault(each, name)
    pair = clash(taught)
    return faults if pair is None else [*faults, f"the classes {as_pair(*pair)}; rename one"]
