"""Data sets that a manifest names."""

import os
from collections.abc import Sequence
from pathlib import Path

from m2sd_cli.config.stages import recorded_choice
from m2sd_cli.data.catalogue import SIMULATED, DataSetInfo, get_info, listed_names
from m2sd_cli.data.choosing import choose_training
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.protocol import apply_protocol
from m2sd_cli.data.recorded import find_changes, only_recorded
from m2sd_cli.errors import DamagedError, RunError, UsageError
from m2sd_cli.registry import way_to
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import DataRecord, Manifest, ManifestSummary, TrainingState
from m2sd_cli.runs.places import read_places
from m2sd_cli.runs.reader import FileReader
from m2sd_cli.training.initial_weights import known_weights, prepared_for_weights
from m2sd_cli.training.records import left_out, recorded_list, recorded_protocol


def recorded_info(manifest: Manifest | TrainingState) -> DataSetInfo | None:
    """Look up the data set of the catalogue that a manifest names; None if that is a folder.

    Raises:
        RunError: the catalogue has none of that name, which is never taken for a path.
    """
    name = manifest.data.name
    if manifest.data.kind == "folder":
        return None
    info = get_info(name)
    if info is None:
        origin = manifest.plugins.get(name.removesuffix(SIMULATED)) if isinstance(manifest, Manifest) else None
        raise RunError(f"this run is of {name!r}, and this version knows no data set of that name{way_to(origin)}")
    return info


def find_folder(run: FileReader, first: Manifest | TrainingState, data: str | None) -> str | None:
    """Return the folder of the base classes: the one that is named, else the one that the run remembers.

    Args:
        run: the run.
        first: the manifest of stage 1, or the state of an interrupted stage 1.
        data: the folder that is named, or the data set.

    Returns:
        None for a built-in data set that is not named.

    Raises:
        UsageError: the folder is not named, and where it was is not known or it is not there any more.
    """
    if data is not None or first.data.kind != "folder":
        return data
    remembered = read_places(run.path).data.get(first.data.name)
    if remembered is None:
        raise UsageError(f"this run is of the folder {first.data.name!r}; say where it is with --data")
    if not os.path.isdir(remembered):
        raise UsageError(
            f"this run is of the folder {first.data.name!r}, and it is not where it was, {remembered}; say where it is "
            f"with --data"
        )
    return remembered


def recorded_data(
    first: Manifest | TrainingState,
    data: str | None,
    data_root: Path | None,
    image_size: int | None,
    ignore_new: bool = False,
) -> DataSet:
    """Open the data set of a run as stage 1 saw it; a folder's path is not recorded and has to be named again.

    Args:
        first: the manifest of stage 1, or the state of an interrupted stage 1.
        data: the folder, whose path is not recorded; a built-in data set need not be named.
        data_root: the folder of built-in data sets.
        image_size: the side of a folder's images in pixels.
        ignore_new: leave out the images of a folder that stage 1 did not have.

    Raises:
        UsageError: a folder is not named, or another data set is.
        DamagedError: the recorded choice of images is not valid.
        DataError: the images cannot be read.
    """
    record, skipped = first.data, left_out(first.skipped)
    try:
        choice = recorded_choice(first.config)
    except UsageError as error:
        raise DamagedError(
            f"stage 1 does not say which images it was given: {error}; restore its manifest from a backup"
        ) from None
    if recorded_info(first) is not None:
        if data is not None and data != record.name:
            raise UsageError(f"--data {data}: this run is of {record.name}; leave --data out")
        whole = open_data(record.name, data_root, skipped=skipped, protocol=recorded_protocol(record))
    elif data is None:
        raise UsageError(f"this run is of the folder {record.name!r}; say where it is with --data")
    elif get_info(data) is not None:
        raise UsageError(f"--data {data}: this run is of the folder {record.name!r}; say where it is")
    else:
        transform, listed = first.config.get("transform"), recorded_list(first.split)
        if transform is not None:
            whole = open_data(data, data_root, None, skipped, transform=str(transform), listed=listed)
        else:
            whole = open_data(data, data_root, image_size, skipped, listed=listed)
            weights = first.weights or known_weights(first.config.get("backbone"), first.config.get("init"))
            whole = prepared_for_weights(whole, weights, image_size)
        if ignore_new:
            files = first.files if isinstance(first, Manifest) else {}
            if not files:
                raise UsageError(
                    "--ignore-new: this run does not list its images, so which are new is not known; leave it out"
                )
            whole = only_recorded(whole, files)
    return choose_training(whole, choice.held_out, choice.images_per_class)


def say_changes(data: DataSet, first: Manifest) -> str:
    """Describe how the images of a folder differ from those that stage 1 lists, to follow a message; or nothing."""
    changes = find_changes(data, first.files).describe() if first.files else ""
    return changes and f"; {changes}"


def own_session(
    run: FileReader, first: Manifest, data: str | None, data_root: Path | None, session: int
) -> tuple[DataSet, Shots]:
    """Open a session that the data of a run have: by the protocol, by the list of a folder, or officially.

    Args:
        run: the run.
        first: the manifest of stage 1.
        data: another built-in data set, whose official session it is; or the place of the folder that has a list.
        data_root: the folder of built-in data sets.
        session: its number there.

    Raises:
        UsageError: a folder without a list was named.
        RunError: there is no session of that number.
        DataError: the images cannot be read.
    """
    if first.split is None or (data is not None and get_info(data) is not None):
        opened = official_data(first.data, data, data_root, session)
    else:
        opened = recorded_data(first, find_folder(run, first, data), data_root, first.transform.crop)
        if session > opened.sessions:
            raise RunError(
                f"the list of {first.data.name!r} has no session {session}, its last is {opened.sessions}; teach yours "
                f"with --shots DIR"
            )
    return opened, opened.session(session)


def next_session(folder: RunFolder) -> int | None:
    """Return the number of the next session of a run, for hints; None if its data have no session left."""
    chain, first = folder.summary(), folder.pretrain().manifest
    info = recorded_info(first)
    if info is not None:
        sessions = apply_protocol(info, recorded_protocol(first.data)).sessions
    else:
        sessions = 0 if first.split is None else len(first.split.sessions)
    number = len(chain.sessions)
    return number if official_number(chain.sessions, number) <= sessions else None


def official_number(parts: Sequence[Manifest | ManifestSummary], session: int) -> int:
    """Return the number that a data set gives to a session: sessions before it that taught no class do not count."""
    return session - sum(part.kind not in ("base", "increment") for part in parts[:session])


def official_data(record: DataRecord, data: str | None, data_root: Path | None, session: int) -> DataSet:
    """Open the data set whose own session to teach: divided as stage 1 was, unless another one is named."""
    if data is not None and get_info(data) is None:
        raise UsageError(
            f"--data {data}: only built-in data sets have sessions of their own ({listed_names()}); "
            f"name new images with --shots"
        )
    name = data or (record.name if record.kind == "built-in" else None)
    if name is None or get_info(name) is None:
        raise UsageError(f"{record.name}: a folder has no sessions of its own; name the new images with --shots DIR")
    data_set = open_data(name, data_root, protocol=recorded_protocol(record) if name == record.name else None)
    if session > data_set.sessions:
        last = data_set.sessions
        raise RunError(f"{name} has no session {session} of its own, its last is {last}; teach yours with --shots DIR")
    return data_set
