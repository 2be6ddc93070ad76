"""The folders of a run's images on this machine, so that they are named once.

They lie in a small file beside the chain, which no other file refers to: without it folders have to be named again.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.files import read_bounded, write_atomically

PLACES: Final = "places.json"
LIMIT: Final = 1 << 20  # bytes


@dataclass(frozen=True)
class Places:
    """Whole paths of folders; whatever lies there is checked by its SHA-256 when it is used."""

    data: dict[str, str] = field(default_factory=dict)  # of the base classes, by the bare name in the manifests
    shots: dict[str, list[str]] = field(default_factory=dict)  # by the number of the session


def read_places(run: Path) -> Places:
    """Read the places of a run folder; none if there is no such file, or one that nobody wrote."""
    try:
        content = json.loads(read_bounded(run / PLACES, LIMIT))
        data, shots = content["data"], content["shots"]
        if all(isinstance(each, str) for each in data.values()) and all(
            isinstance(path, str) for each in shots.values() for path in each
        ):
            return Places(dict(data), {number: list(each) for number, each in shots.items()})
    except (FileNotFoundError, DamagedError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        pass
    return Places()


def remember_data(run: Path, name: str, folder: Path) -> None:
    """Remember the folder of the base classes, by the bare name that manifests have of it."""
    places = read_places(run)
    _write(run, places, Places({**places.data, name: str(folder.resolve())}, places.shots))


def remember_shots(run: Path, session: int, folders: list[Path]) -> None:
    """Remember the folders of a session's shots; of a later session that was there before it is not true any more."""
    places = read_places(run)
    kept = {number: paths for number, paths in places.shots.items() if number.isdecimal() and int(number) < session}
    _write(run, places, Places(places.data, {**kept, str(session): [str(path.resolve()) for path in folders]}))


def _write(run: Path, before: Places, places: Places) -> None:
    if places != before:
        with suppress(RunError):  # of a run folder that may only be read; the folder is named again then
            write_atomically(run / PLACES, json.dumps({"data": places.data, "shots": places.shots}, indent=1).encode())
