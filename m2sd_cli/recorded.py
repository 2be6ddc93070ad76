"""The data set that a manifest names."""

from collections.abc import Sequence
from pathlib import Path

from m2sd_cli.data.catalogue import BUILT_IN, NAMES, DataSetInfo
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_data
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.runs.manifest import DataRecord, SkippedRecord
from m2sd_cli.training.records import left_out


def recorded_info(record: DataRecord) -> DataSetInfo | None:
    """The built-in data set of a manifest, whose name is never taken for a path; None for a folder."""
    if record.kind == "folder":
        return None
    if record.name not in BUILT_IN:
        raise RunError(f"this run is of {record.name!r}, and this version knows no data set of that name")
    return BUILT_IN[record.name]


def recorded_data(
    record: DataRecord,
    data: str | None,
    data_root: Path | None,
    image_size: int | None,
    skipped: Sequence[SkippedRecord],
) -> DataSet:
    """The data set of a manifest, as it was seen then; a folder's place is not in it and has to be named again."""
    if recorded_info(record) is not None:
        if data is not None and data != record.name:
            raise UsageError(f"--data {data}: this run is of {record.name}; leave --data out")
        return open_data(record.name, data_root, skipped=left_out(skipped))
    if data is None:
        raise UsageError(f"this run is of the folder {record.name!r}; say where it is with --data")
    if data in BUILT_IN:
        raise UsageError(f"--data {data}: this run is of the folder {record.name!r}")
    return open_data(data, data_root, image_size, left_out(skipped))


def official_data(record: DataRecord, data: str | None, data_root: Path | None, session: int) -> DataSet:
    """The data set whose official session to teach."""
    if data is not None and data not in BUILT_IN:
        raise UsageError(
            f"--data {data}: only built-in data sets have sessions of their own ({NAMES}); name new images with --shots"
        )
    name = data or (record.name if record.kind == "built-in" else None)
    if name not in BUILT_IN:
        raise UsageError(f"session {session}: a folder has no official sessions; name the new images with --shots DIR")
    data_set = open_data(name, data_root)
    if session > data_set.sessions:
        last = data_set.sessions
        raise RunError(f"{name} has no session {session} of its own, its last is {last}; teach yours with --shots DIR")
    return data_set
