"""The layout of a person's folder: its classes, its parts for training and testing, its faults.

A scan refuses nothing, so that `data verify` can tell all faults at once.
"""

import os
import shlex
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from m2sd_cli.data.image_files import images_among, images_below, is_passed_over, is_run_folder, list_folder
from m2sd_cli.data.kinds import ARCHIVES, is_any_image, listed_kinds
from m2sd_cli.data.left_out import LeftOut, by_kind, count_suffixes, describe, shorten
from m2sd_cli.data.names import as_pair, clash, class_name, is_text
from m2sd_cli.errors import DataError
from m2sd_cli.paths import refuse_address
from m2sd_cli.progress import say
from m2sd_cli.reading import counted

TRAIN = "train"
TEST = ("test", "val", "valid", "validation")  # the first of these folders that is there is tested on
SPLIT_WORDS = frozenset({"training", "testing", *TEST})  # names that other programs give the parts of a split


@dataclass
class Classes:
    """The classes of a folder, FOLDER/CLASS/*.jpg, sorted by name, and its faults and left-out files."""

    folder: Path
    images: dict[str, list[Path]] = field(default_factory=dict)  # of each class, sorted
    faults: list[str] = field(default_factory=list)  # each in one line, with the way out
    left_out: list[LeftOut] = field(default_factory=list)
    run_folders: list[Path] = field(default_factory=list)

    def say_left_out(self) -> None:
        """Report the files and run folders that are left out, if any."""
        for path in self.run_folders:
            say(f"{path}: a run folder, and no class; it is left out")
        if self.left_out:
            say(f"{self.folder}: left out: {describe(self.left_out)}")


def refuse_faults(faults: Sequence[str], folder: Path) -> None:
    """Refuse a folder that has faults; the message has the first one.

    Raises:
        DataError: there is a fault.
    """
    if faults:
        more = f"; and {len(faults) - 1} more; to list them: m2sd data verify {shlex.quote(str(folder))}"
        raise DataError(faults[0] + (more if len(faults) > 1 else ""))


@dataclass(frozen=True)
class Split:
    """The parts of a folder that is laid out as train/CLASS and test/CLASS."""

    train: Path
    test: Path | None
    beside: list[str]  # other folders, which no part takes

    def remarks(self) -> list[str]:
        """Describe the split in lines, if other folders lie beside it or its parts have unusual names."""
        names = [path.name for path in (self.train, self.test) if path is not None]
        parts, them = (f"{names[0]}/ and {names[1]}/", "them") if self.test else (f"{names[0]}/", "it")
        found = f"{self.train.parent}: {parts} found: a split"
        lines = []
        if self.beside:
            count = len(self.beside)
            ignored = f"1 other folder beside {them} is" if count == 1 else f"{count} other folders beside {them} are"
            lines.append(f"{found}; {ignored} ignored: {shorten(self.beside)}")
        elif names not in ([TRAIN], [TRAIN, TEST[0]]):
            lines.append(found)
        if self.test is not None and self.test.name.lower() != TEST[0]:
            lines.append(f"{self.test}: it is what is tested on, as there is no test/")
        return lines


def find_split(folder: Path) -> Split | None:
    """Find the parts of a folder that is laid out as train/CLASS, in upper or lower case; None if it is not.

    A folder called train may be a class: it is one if it has no folder in it, or has images of its own and other
    classes beside it.

    Raises:
        DataError: the folder, or FOLDER/train, cannot be read.
    """
    folders = visible_folders(folder)
    train = _named(folders, TRAIN)
    if train is None or not visible_folders(train):
        return None
    entries = [*folders, *(path for path in list_folder(folder) if path.is_symlink() and path not in folders)]
    test = next(filter(None, (_named(entries, name) for name in TEST)), None)
    others = [path for path in folders if path not in (train, test)]
    beside = [path.name for path in others if not is_run_folder(list_folder(path))]
    if any(images_among(list_folder(train))) and any(name.lower() not in TEST for name in beside):
        return None
    return Split(train, test, beside)


def _named(paths: Sequence[Path], name: str) -> Path | None:
    """Find the path of a name, or else the first path whose name differs by case alone."""
    alike = [path for path in paths if path.name.lower() == name]
    return next((path for path in alike if path.name == name), alike[0] if alike else None)


def require_folder(folder: Path) -> None:
    """Refuse a path at which there is no folder.

    Raises:
        DataError: there is no folder.
    """
    if os.path.isdir(folder):
        return
    refuse_address(folder)
    if not os.path.isfile(folder):
        raise DataError(f"{folder}: no such folder")
    packed = "; unpack it, and name the folder" if folder.suffix.lower() in ARCHIVES else ""
    raise DataError(f"{folder}: a file, and no folder{packed}")


def visible_folders(folder: Path) -> list[Path]:
    """List the folders in a folder that may be classes, sorted.

    Raises:
        DataError: the folder cannot be read.
    """
    return sorted(path for path in list_folder(folder) if not is_passed_over(path) and os.path.isdir(path))


def scan_classes(folder: Path) -> Classes:
    """Scan a folder of classes. A class may be a link to a folder; hidden folders and those of systems are no classes.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    require_folder(folder)
    found = Classes(folder)
    suffixes: Counter[str] = Counter()
    inside, beside, archives = [], 0, Counter[str]()
    for path in list_folder(folder):
        if is_passed_over(path):
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            why = "a link that leads nowhere" if os.path.islink(path) else error.strerror
            found.faults.append(f"{path}: cannot be read ({why}); it might be a class")
            continue
        if stat.S_ISDIR(mode):
            inside.append(path)
        else:
            beside += is_any_image(path)
            archives.update({path.suffix.lower()} & ARCHIVES)
    names = [path.name for path in inside if is_text(path.name)]
    pair = clash(sorted(names, key=lambda name: (class_name(name), name)))
    if pair is not None:  # a file system that ignores case, and a person, would take both for one
        found.faults.append(f"{folder}: the classes {as_pair(*pair)}; rename one")
    nested, linked = [], []
    for path in sorted(inside, key=lambda path: (class_name(path.name), path.name)):
        if not is_text(path.name):
            found.faults.append(f"{path}: the name of a class has to be UTF-8; rename the folder")
            continue
        try:
            entries = list_folder(path)
            images = sorted(images_among(entries))
            counts = count_suffixes(entries)
            if images:
                found.images.setdefault(class_name(path.name), images)
                suffixes += counts
                folders = visible_folders(path)
                links = [each for each in folders if each.is_symlink()]
                below = sum(len(images_below(each)) for each in folders if each not in links)
                if below:
                    nested.append((below, path.name))
                if links:
                    linked.append((len(links), path.name))
            elif is_run_folder(entries):
                found.run_folders.append(path)
            else:
                found.faults.append(f"{path}: no image in it{_why_none(path, counts)}")
        except DataError as error:
            found.faults.append(str(error))
    if nested:
        total, places = sum(count for count, _ in nested), shorten([name for _, name in nested])
        kind = f"{_images(total)} in folders inside of classes ({places})"
        found.left_out.append(LeftOut(total, kind, "a class has its images in its own folder; move them there"))
    if linked:
        total, places = sum(count for count, _ in linked), shorten([name for _, name in linked])
        kind = f"{'link' if total == 1 else 'links'} to a folder inside of classes ({places})"
        found.left_out.append(LeftOut(total, kind, "a class has its images in its own folder; put them there"))
    if beside:
        found.left_out.append(
            LeftOut(beside, f"{_images(beside)} beside the folders of classes", "each belongs into that of its class")
        )
    found.left_out += by_kind(suffixes + archives)
    if not found.images and not found.faults:
        why = f"; {counted(beside, 'image')} {'lies' if beside == 1 else 'lie'} in it" if beside else ""
        found.faults.append(
            f"{folder}: no class in it; it needs one sub-folder a class, holding that class's images{why}"
        )
    return found


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _why_none(path: Path, counts: Counter[str]) -> str:
    """Describe why a class has no image, and the way out."""
    holders = [each.name for each in visible_folders(path) if images_below(each)]
    if not holders:
        return f" that can be read: {describe(by_kind(counts))}" if counts else f" ({listed_kinds()})"
    if path.name.lower() in SPLIT_WORDS:
        way = f"if {path.name} is a part of a split, call the parts train and test"
    else:
        way = f"if these are the classes, name {path} instead; if {path.name} is one, move their images into it"
    return f", but in its folders ({shorten(holders)}): {way}"
