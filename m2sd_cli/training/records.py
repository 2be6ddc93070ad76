"""The records of a manifest: data, classes, transform, versions, device, time."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

import torch

from m2sd_cli import __version__
from m2sd_cli.config.stages import TrainingConfig
from m2sd_cli.data.catalogue import DATA_SETS, SIMULATED, get_info
from m2sd_cli.data.datasets import DataSet, Skipped
from m2sd_cli.data.folders import has_own_split
from m2sd_cli.data.names import class_name
from m2sd_cli.data.protocol import Protocol
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.split_list import SplitList
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.host import cpu_model
from m2sd_cli.registry import file_of, way_to
from m2sd_cli.runs.manifest import (
    ClassRecord,
    DataRecord,
    MachineRecord,
    ProtocolRecord,
    SkippedRecord,
    SplitRecord,
    TrainingState,
    TransformRecord,
)
from m2sd_cli.tables import BACKBONES, CLASSIFIERS, OPTIMIZERS, SCHEDULES
from m2sd_cli.training.execution import Execution

if TYPE_CHECKING:
    from m2sd_cli.registry import Registry

NAMED = 3  # classes in a message
LISTED = "by a list of paths"
TABLES: "Final[tuple[Registry[Any], ...]]" = (BACKBONES, CLASSIFIERS, OPTIMIZERS, SCHEDULES, DATA_SETS)
OF_ONE_CLASS = "the named images are shots of one class"


def versions() -> dict[str, str]:
    """Return the versions of m2sd, Python, torch and CUDA."""
    known = {"m2sd": __version__, "python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda and torch.cuda.is_available():
        known["cuda"] = torch.version.cuda
    return known


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or the kind of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def machines(execution: Execution, state: TrainingState | None) -> list[MachineRecord]:
    """List the machines of a training, this one last; a machine that resumes its own training is not repeated.

    Args:
        state: that the training is resumed from.
    """
    device = execution.device
    here = MachineRecord(
        from_step=state.step if state else 0,
        device=device_name(device),
        cpu=cpu_model(),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        processes=execution.group.size,
        versions=versions(),
    )
    before = state.machines if state else []
    same = before and before[-1] == here.model_copy(update={"from_step": before[-1].from_step})
    return before if same else [*before, here]


class Provenance(TypedDict):
    """The fields of a manifest that tell how its checkpoint was computed."""

    versions: dict[str, str]
    device: str
    threads: int | None
    precision: str
    compiled: bool
    deterministic: bool
    seconds: float
    created: str


def provenance(execution: Execution, seconds: float) -> Provenance:
    """Record the conditions of a computation that has just ended."""
    device = execution.device
    return Provenance(
        versions=versions(),
        device=device_name(device),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        precision=execution.exact_precision,
        compiled=execution.compile,
        deterministic=execution.deterministic,
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def digest(hashes: Sequence[str]) -> str:
    """Compute one SHA-256 of many, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def class_records(names: Sequence[str], source: ImageSource, first_index: int, list_shots: bool) -> list[ClassRecord]:
    """Record the classes of a session.

    Args:
        source: their images; labels are indices of `names`.
        first_index: the index of the first class in the chain.
        list_shots: list the SHA-256 of every image beside the digest of all.
    """
    by_class: list[list[str]] = [[] for _ in names]
    for label, sha256 in zip(source.labels.tolist(), source.digests(), strict=True):
        by_class[label].append(sha256)
    return [
        ClassRecord(
            index=first_index + number,
            name=name,
            shots=len(hashes),
            digest=digest(hashes),
            shot_sha256=hashes if list_shots else [],
        )
        for number, (name, hashes) in enumerate(zip(names, by_class, strict=True))
    ]


def base_records(data: DataSet) -> list[ClassRecord]:
    """Record the base classes of a data set with their images."""
    return class_records(data.classes[: data.base], data.train, 0, list_shots=False)


def data_record(data: DataSet) -> DataRecord:
    """Record the name, the kind and the division of a data set."""
    info = get_info(data.name)
    if data.listed is not None:
        return DataRecord(name=data.name, kind="folder", split=LISTED)
    if info is not None and data.sessions:
        original, protocol = DATA_SETS[info.simulates or info.name], data.protocol
        split = "official" if protocol is None else protocol.describe(original.classes)
        if info.simulates:
            simulated = f"base training images of {original.name}; a tenth of each class by its SHA-256s for testing"
            split = simulated if protocol is None else f"{simulated}; {split}"
        recorded = None if protocol is None else ProtocolRecord(**asdict(protocol))
        return DataRecord(name=data.name, kind="built-in", split=split, protocol=recorded)
    split = "train and test folders" if has_own_split(data.location) else "80/20 by the SHA-256 of file names"
    return DataRecord(name=data.name, kind="folder", split=split)


def recorded_protocol(record: DataRecord) -> Protocol | None:
    """Return the protocol that divided recorded images; None for the official one."""
    if record.protocol is None:
        return None
    order = record.protocol.class_order
    values = {**dict(record.protocol), "class_order": tuple(order) if isinstance(order, list) else order}
    return Protocol(**values)


def split_record(data: DataSet) -> SplitRecord | None:
    """Record the list that divides a folder; None if there is none."""
    listed = data.listed
    if listed is None:
        return None
    return SplitRecord(base=list(listed.base), sessions=list(map(list, listed.sessions)), test=list(listed.test))


def recorded_list(record: SplitRecord | None) -> SplitList | None:
    """Return a recorded list; None if there is none."""
    if record is None:
        return None
    return SplitList(tuple(record.base), tuple(map(tuple, record.sessions)), tuple(record.test))


def changed_part(plugins: Mapping[str, str]) -> str | None:
    """Name a part that comes from another file than it did; None if there is none. A missing part is none.

    Args:
        plugins: the origin of each part by its name, as `plugins_record` gave it.
    """
    for name, origin in plugins.items():
        here = [table for table in TABLES if name in table]
        if here and all(table.has_changed(name, origin) for table in here):
            return name
    return None


def require_plugins(plugins: Mapping[str, str], begun: str) -> None:
    """Refuse to go on with parts that are missing, or that come from another file than they did.

    Args:
        plugins: the origin of each part by its name.
        begun: the thing that began with them, for messages.

    Raises:
        RunError: a part is missing.
        UsageError: it comes from another file.
    """
    for name, origin in plugins.items():
        if not any(name in table for table in TABLES):
            raise RunError(f"{begun} began with {name!r}, which is not here{way_to(origin)}")
    changed = changed_part(plugins)
    if changed is not None:
        raise UsageError(
            f"{begun} began with {changed!r} of another {file_of(plugins[changed])}, which was changed since; name the "
            f"file as it was, or start over with --force"
        )


def plugins_record(
    data: DataRecord, backbone: str | None, classifier: str | None = None, config: TrainingConfig | None = None
) -> dict[str, str]:
    """Return the package and version, or the file, of every part that this package does not bring, by its name."""
    names: list[tuple[Registry[Any], str | None]] = [(BACKBONES, backbone), (CLASSIFIERS, classifier)]
    names += [(OPTIMIZERS, config.optimizer), (SCHEDULES, config.schedule)] if config else []
    names += [(DATA_SETS, data.name.removesuffix(SIMULATED))] if data.kind == "built-in" else []
    return {name: origin for table, name in names if name and (origin := table.origin(name))}


def shots_record(folder: str, named: bool = False) -> DataRecord:
    """Record shots of a person by the bare name of their folder.

    Args:
        folder: that name.
        named: whether the images were named one by one, with their class, and are not those of a folder a class.
    """
    return DataRecord(name=folder, kind="folder", split=OF_ONE_CLASS if named else "all images are shots")


def skipped_records(skipped: Sequence[Skipped]) -> list[SkippedRecord]:
    """Record the images that were left out."""
    return [SkippedRecord(**asdict(image)) for image in skipped]


def left_out(records: Sequence[SkippedRecord]) -> list[Skipped]:
    """Return the images that were left out according to their records."""
    return [Skipped(record.file, record.reason) for record in records]


def transform_record(transform: TestTransform) -> TransformRecord:
    """Record the test transform in full."""
    return TransformRecord(**asdict(transform))


def classes_digest(classes: Sequence[ClassRecord]) -> str:
    """Compute one SHA-256 of the names and images of all classes."""
    # A data set of another package may name a class in another Unicode form than a folder does.
    return digest([f"{record.index} {class_name(record.name)} {record.digest}" for record in classes])


def name_changes(opened: Sequence[ClassRecord], recorded: Sequence[ClassRecord]) -> str:
    """Name the first classes whose images are not the recorded ones, for a message."""
    now, then = ({class_name(each.name): each for each in classes} for classes in (opened, recorded))
    changes = []
    for name in {**then, **now}:
        if name not in now:
            changes.append(f"{name!r} is missing")
        elif name not in then:
            changes.append(f"{name!r} is new")
        elif now[name].shots != then[name].shots:
            changes.append(f"{name!r} has {now[name].shots} images, not {then[name].shots}")
        elif now[name].digest != then[name].digest:
            changes.append(f"{name!r} has other images, or other names of them")
    more = f" and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
    return (", ".join(changes[:NAMED]) or "the classes come in another order") + more
