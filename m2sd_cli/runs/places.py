"""The folders of a run's images on this machine, so that a person names them once.

Their paths lie in a small file beside the chain. No other file refers to it: without it folders are named again.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.files import TEXT_LIMIT, read_bounded, write_atomically

PLACES: Final = "places.json"


@dataclass(frozen=True)
class Places:
    """Whole paths of folders; the images in them are checked by their SHA-256s when they are used."""

    data: dict[str, str] = field(default_factory=dict)  # of the base classes, by the bare name in the manifests
    shots: dict[str, list[str]] = field(default_factory=dict)  # by the number of the session


def read_places(run: Path) -> Places:
    """Read the places of a run folder; none if the file is missing or holds something else."""
    try:
        content = json.loads(read_bounded(run / PLACES, TEXT_LIMIT))
        data, shots = content["data"], content["shots"]
        if all(isinstance(each, str) for each in data.values()) and all(
            isinstance(path, str) for each in shots.values() for path in each
        ):
            return Places(dict(data), {number: list(each) for number, each in shots.items()})
    except (FileNotFoundError, DamagedError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        pass
    return Places()


def remember_data(run: Path, name: str, folder: Path) -> None:
    """Remember the folder of the base classes, by its bare name in the manifests."""
    places = read_places(run)
    _write(run, places, Places({**places.data, name: str(folder.resolve())}, places.shots))


def remember_shots(run: Path, session: int, folders: list[Path]) -> None:
    """Remember the folders of a session's shots, and forget those of later sessions, which this one has replaced."""
    places = read_places(run)
    kept = {number: paths for number, paths in places.shots.items() if number.isdecimal() and int(number) < session}
    _write(run, places, Places(places.data, {**kept, str(session): [str(path.resolve()) for path in folders]}))


def _write(run: Path, before: Places, places: Places) -> None:
    if places != before:
        with suppress(RunError):  # a run folder may be read-only; its folders are then named again
            write_atomically(run / PLACES, json.dumps({"data": places.data, "shots": places.shots}, indent=1).encode())
