"""The shots that taught sessions, found by their SHA-256, whatever their files and folders are called now."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from m2sd_cli.data.datasets import Shots
from m2sd_cli.data.image_files import find_images, images_below
from m2sd_cli.data.layout import visible_folders
from m2sd_cli.data.sources import FileImages, find_files
from m2sd_cli.errors import DataError
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.training.records import left_out

NAMED = 3  # classes in a message


def find_shots(named: Sequence[Path], remembered: Sequence[Path] = ()) -> dict[str, Path]:
    """Find images by their SHA-256, in folders whose classes may be links to folders.

    Args:
        named: files and folders that a person names.
        remembered: folders that once held shots; they may be without images now, and what is beside the shots in them
            may be closed to readers.

    Raises:
        DataError: nothing that is named is an image or has one, or a folder that is named cannot be read.
    """
    images = find_images([each for path in named for each in _with_links(path)]) if named else []
    for path in remembered:
        with suppress(DataError):
            images += (image for each in _with_links(path) for image in images_below(each, tolerant=True))
    return find_files(list(dict.fromkeys(images)))


def _with_links(path: Path) -> list[Path]:
    """List a path and, of a folder, the folders with images that links in it lead to; without it if they have all."""
    links = [each for each in visible_folders(path) if each.is_symlink()] if os.path.isdir(path) else []
    linked = [each for each in links if images_below(each, tolerant=True)]
    return linked if linked and not images_below(path, tolerant=True) else [path, *linked]


def shots_there(session: Manifest, files: Mapping[str, Path]) -> Shots:
    """Make the shots of a session of the files that are there, in their recorded order, under the names of then.

    Args:
        session: a manifest that lists its shots.
        files: by their SHA-256.
    """
    items = [
        (files[sha256], label)
        for label, each in enumerate(session.classes)
        for sha256 in each.shot_sha256
        if sha256 in files
    ]
    names = [each.name for each in session.classes]
    return Shots(names, FileImages.from_items(items), left_out(session.skipped))


def require_all(
    sessions: Sequence[Manifest],
    files: Mapping[int, Mapping[str, Path]],
    searched: Mapping[int, Sequence[Path]],
    option: str,
) -> None:
    """Refuse files that lack a shot.

    Args:
        sessions: manifests that list their shots.
        files: by the number of the session, and by their SHA-256.
        searched: the folders that they were found in, by the number of the session.
        option: the way out, for the message.

    Raises:
        DataError: shots are missing; the message names their classes.
    """
    missing, places = [], dict[Path, None]()
    for session in sessions:
        assert session.session is not None
        for each in session.classes:
            absent = sum(sha256 not in files[session.session] for sha256 in each.shot_sha256)
            if absent:
                missing.append(f"{absent} of {each.shots} of {each.name!r} (session {session.session})")
                places |= dict.fromkeys(searched.get(session.session, ()))
    if missing:
        more = f"; and of {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        where = f"; looked in {', '.join(map(str, places))}" if places else ""
        raise DataError(
            f"shots are missing, name where they are with {option}: {'; '.join(missing[:NAMED])}{more}{where}"
        )
