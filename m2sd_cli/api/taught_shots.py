"""The shots that taught sessions, found by their SHA-256, whatever their files and folders are called now."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from m2sd_cli.data.datasets import Shots
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import DataError
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.training.records import left_out

NAMED = 3  # classes in a message


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


def require_all(sessions: Sequence[Manifest], files: Mapping[int, Mapping[str, Path]], option: str) -> None:
    """Refuse files that lack a shot.

    Args:
        sessions: manifests that list their shots.
        files: by the number of the session, and by their SHA-256.
        option: the way out, for the message.

    Raises:
        DataError: shots are missing; the message names their classes.
    """
    missing = []
    for session in sessions:
        assert session.session is not None
        for each in session.classes:
            absent = sum(sha256 not in files[session.session] for sha256 in each.shot_sha256)
            if absent:
                missing.append(f"{absent} of {each.shots} of {each.name!r} (session {session.session})")
    if missing:
        more = f"; and of {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise DataError(f"shots are missing, name their folders with {option}: {'; '.join(missing[:NAMED])}{more}")
