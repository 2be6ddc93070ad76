"""The image files in folders, and opening one of them."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from m2sd_cli.data.kinds import is_image, listed_kinds
from m2sd_cli.data.left_out import LeftOut, by_kind, count_suffixes, describe, shorten
from m2sd_cli.errors import DataError, ImageError, os_errors_as
from m2sd_cli.paths import refuse_address
from m2sd_cli.progress import say

# Folders of systems and network drives, which hold thumbnails or deleted files; in lower case.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "__macosx", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "@tmp", "$recycle.bin"}
    | {"system volume information", "lost+found", "__pycache__"}
)
RUN_FILES = frozenset({"head.json", "pretrain.json", ".writer.json"})  # one of them marks a run folder
NOT_A_FILE = "not a file, or a link that leads nowhere"


def open_file(path: Path) -> BufferedReader:
    """Open the file of an image; a pipe or a device is refused, and not waited for.

    Raises:
        ImageError: it cannot be opened, or is no file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(path, NOT_A_FILE)
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError(path, NOT_A_FILE if os.path.islink(path) else "no such file") from None
    except PermissionError:
        raise ImageError(path, "no permission to read it") from None
    except OSError as error:
        why = NOT_A_FILE if error.errno == errno.ELOOP else f"cannot be read ({error.strerror or error})"
        raise ImageError(path, why) from None


def is_passed_over(folder: Path) -> bool:
    """Tell if a folder is hidden or the system's own, so that no photo is in it."""
    return folder.name.startswith(".") or folder.name.lower() in SYSTEM_FOLDERS


def is_run_folder(entries: Iterable[Path]) -> bool:
    """Tell by the entries of a folder if it is a run folder; a folder with images is none."""
    listed = list(entries)
    return any(path.name in RUN_FILES for path in listed) and not any(images_among(listed))


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List the named files, and the images in named folders and their sub-folders, sorted by name.

    A link to a folder is followed if a person names it, but not inside a folder, where it may lead in circles. Hidden
    folders, the system's own and run folders are searched only if a person names them. Files in folders that are no
    images, and links to folders, are counted and reported.

    If there is any image, a path that does not exist and a folder without an image are listed like files, so that
    reading them reports the fault.

    Raises:
        DataError: there is no image at all, or a folder cannot be read.
    """
    images: list[Path] = []
    problems: list[str] = []
    paths = list(paths)
    themselves = {path.absolute() for path in paths}
    for path in paths:
        if os.path.isdir(path):
            suffixes: Counter[str] = Counter()
            links: list[Path] = []
            inside = images_below(path, suffixes, links)
            left_out = by_kind(suffixes)
            if not inside and any(each.absolute() in themselves for each in links):
                continue  # its images are those behind the links
            links = [each for each in links if each.absolute() not in themselves]
            if links:
                kind, them = ("link to a folder", "it") if len(links) == 1 else ("links to folders", "them")
                named = shorten(sorted(str(each.relative_to(path)) for each in links))
                left_out.append(LeftOut(len(links), f"{kind} ({named})", f"name {them}, too"))
            if not inside:
                why = f" that can be read: {describe(left_out)}" if left_out else f" ({listed_kinds()})"
                problems.append(f"{path}: no image in it{why}")
                images.append(path)
            elif left_out:
                say(f"{path}: left out: {describe(left_out)}")
            images += inside
        elif os.path.lexists(path):
            images.append(path)
        else:
            refuse_address(path)
            problems.append(f"{path}: no such file or folder")
            images.append(path)
    if problems and len(problems) == len(images):
        raise DataError(problems[0])
    return images


def images_below(
    top: Path, left_out: Counter[str] | None = None, links: list[Path] | None = None, tolerant: bool = False
) -> list[Path]:
    """List the images in a folder and its sub-folders, sorted by name, as `find_images` does.

    Args:
        top: the folder.
        left_out: counts the other files by their suffixes.
        links: gets the links to folders, in which nothing is searched.
        tolerant: pass over a folder that cannot be read.

    Raises:
        DataError: a folder cannot be read.
    """
    inside: list[Path] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            entries = list_folder(folder)
        except DataError:
            if not tolerant:
                raise
            continue
        if folder is not top and is_run_folder(entries):
            continue
        inside += images_among(entries)
        if left_out is not None:
            left_out.update(count_suffixes(entries))
        below = [entry for entry in entries if not is_passed_over(entry) and os.path.isdir(entry)]
        folders += (entry for entry in below if not os.path.islink(entry))
        if links is not None:
            links += (entry for entry in below if os.path.islink(entry))
    return sorted(inside)


def list_folder(folder: Path) -> list[Path]:
    """List the entries of a folder, in no particular order.

    Raises:
        DataError: it cannot be read.
    """
    with os_errors_as(DataError, f"{folder}: cannot be read"):
        return list(folder.iterdir())


def images_among(entries: Iterable[Path]) -> Iterator[Path]:
    """Yield the entries of a folder that have an image's name, without hidden ones.

    A link that leads nowhere is yielded, too, so that reading it reports the fault.
    """
    for path in entries:
        if is_image(path) and not path.name.startswith(".") and not os.path.isdir(path):
            yield path
