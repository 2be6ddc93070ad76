"""Reproduction of a chain: it is run again from its manifests, and the weights are compared."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Literal

import torch
from torch import Tensor

from m2sd_cli import progress
from m2sd_cli.api.base_session import fit_distill
from m2sd_cli.api.distill import base_classes
from m2sd_cli.api.edits import write_edits
from m2sd_cli.api.increment import Lesson, find_extended, teach
from m2sd_cli.api.pretrain import fit_pretrain
from m2sd_cli.api.recorded_data import official_number, own_session, recorded_data
from m2sd_cli.api.taught_shots import find_shots, require_all, shots_there
from m2sd_cli.config.stages import NO_INIT, DistillConfig, PretrainConfig, recorded_config
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.names import class_name
from m2sd_cli.data.skipping import leave_out_shots
from m2sd_cli.errors import (
    DataError,
    InterruptedCommandError,
    InterruptedTrainingError,
    RunError,
    UsageError,
    os_errors_as,
)
from m2sd_cli.inference.device import choose_device
from m2sd_cli.output_files import require_writable
from m2sd_cli.paths import expand, expand_given, text_given
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import EDITS, WITH_SHOTS, ClassRecord, MachineRecord, Manifest
from m2sd_cli.runs.places import read_places
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.initial_weights import IMAGENET, file_digest, is_published
from m2sd_cli.training.job import Job
from m2sd_cli.training.records import LISTED, base_records, class_records, left_out

COMMAND = "sessions reproduce"
MOST_THREADS = 1024  # that a manifest can ask for
NAMED = 3  # classes
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm, as torch names them


@dataclass(frozen=True)
class Compared:
    """A stage or session as it is recorded, and as it came out now."""

    name: str
    recorded: str  # SHA-256 of the checkpoint
    reproduced: str
    difference: float | None  # the largest between two numbers; None if the tensors are others, or not finite
    statistics: float | None  # the largest between two of batch norm's running means and variances
    weights: float | None  # the largest between two others

    @property
    def same(self) -> bool:
        """Tell whether the two checkpoints are equal, byte by byte."""
        return self.recorded == self.reproduced


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a whole chain."""

    stages: list[Compared]
    provenance: list[str]  # the conditions under which the first stage that differs was computed otherwise

    @property
    def same(self) -> bool:
        """Tell whether all checkpoints are equal."""
        return all(stage.same for stage in self.stages)


@dataclass(frozen=True)
class Inputs:
    """The images and initial weights of a chain, which match its manifests."""

    base: DataSet
    init: str | None
    shots: dict[int, Shots]  # by session


def reproduce(
    *,
    run: Path | str | None = None,
    session: int | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    shots: Mapping[int, Path | str] | None = None,
    init: Path | str | None = None,
    device: str = "auto",
    keep: Path | str | None = None,
) -> Reproduction:
    """Run a chain once more, all stages, and compare the checkpoints. The run itself is only read.

    Args:
        run: the run folder.
        session: the last session to run; None for the newest.
        data: the folder of pretrain, if it is not where it was; not needed for a built-in data set.
        data_root: the folder of built-in data sets.
        shots: the folder of each session that was taught from one, if it is not where it was.
        init: the file of weights that stage 1 began from, if it did.
        device: `auto` is the recorded one, if it is here.
        keep: the folder to make for the new run; None to keep nothing.

    Raises:
        M2sdError: one of its kinds; nothing was changed or kept.
    """
    folder, root = open_run(run), expand_given(data_root, "--data-root")
    chain = _chain(folder, session)
    target = None if keep is None else Path(keep)
    if target is not None:
        _require_free(target, folder)
    for stored in chain:
        folder.tensors(stored)  # a damaged checkpoint is reported now, and not after hours
    named, folders = _remembered_folders(folder, chain)
    folders |= {number: [expand(each, "--shots")] for number, each in (shots or {}).items()}
    inputs = _open_inputs(folder, chain, text_given(data) or named, root, folders, text_given(init))
    stages: list[Compared] = []
    provenance: list[str] = []
    with _scratch_folder(target) as scratch:
        again = RunFolder(scratch)
        for stored in chain:
            reproduced = _run_again(again, stored, inputs, device)
            compared = _compare(folder, stored, again, reproduced)
            if not compared.same and not provenance:
                provenance = _differences(stored.manifest, reproduced.manifest)
            stages.append(compared)
    return Reproduction(stages, provenance)


def _chain(folder: RunFolder, session: int | None) -> list[StoredManifest]:
    """Return the manifests of stage 1 and of the sessions after it; a run may have no session yet."""
    pretrain = folder.pretrain()
    return [pretrain] if session is None and not folder.sessions() else [pretrain, *folder.chain(session)]


def _require_free(keep: Path, folder: RunFolder) -> None:
    if os.path.lexists(keep):
        raise UsageError(f"--keep {keep}: it exists already; name a folder that does not")
    require_writable("--keep", keep, keep.parent)
    if keep.resolve().is_relative_to(folder.path.resolve()):
        raise UsageError(f"--keep {keep}: that is inside the run; name a folder elsewhere")


@contextmanager
def _scratch_folder(target: Path | None) -> Iterator[Path]:
    """Make a folder to work in; it becomes `target` unless an error is raised, and is removed then."""
    parent = Path(gettempdir()) if target is None else target.parent
    with os_errors_as(RunError, f"{parent}: no folder can be made in it"):
        temporary = TemporaryDirectory(prefix=".m2sd-reproduce-", dir=parent, ignore_cleanup_errors=True)
    with temporary as name:
        scratch = Path(name) / "run"
        yield scratch
        if target is not None:
            with os_errors_as(RunError, f"{target}: could not be made"):
                os.replace(scratch, target)


# ---- the inputs


def _remembered_folders(folder: RunFolder, chain: Sequence[StoredManifest]) -> tuple[str | None, dict[int, list[Path]]]:
    """Find the folder of the base classes, and those of each session's shots, if they are where they were."""
    places, first = read_places(folder.path), chain[0].manifest
    data = places.data.get(first.data.name) if first.data.kind == "folder" else None
    shots: dict[int, list[Path]] = {}
    for manifest in (stored.manifest for stored in chain[2:]):
        paths = places.shots.get(str(manifest.session), [])
        if manifest.session is not None and _is_of_folder(manifest) and paths and all(map(isdir, paths)):
            shots[manifest.session] = [Path(each) for each in paths]
    return data if data and isdir(data) else None, shots


def _open_inputs(
    folder: RunFolder,
    chain: Sequence[StoredManifest],
    data: str | None,
    data_root: Path | None,
    folders: dict[int, list[Path]],
    init: str | None,
) -> Inputs:
    """Open the images of all stages, and find the weights that stage 1 began from.

    Raises:
        UsageError: a folder or file has to be named, or was named in vain; the message lists all that are missing.
        DataError: a folder or file is missing, or does not match the record.
    """
    first, parts = chain[0].manifest, [stored.manifest for stored in chain[1:]]
    sessions = {part.session: part for part in parts if part.kind in WITH_SHOTS}
    began = str(first.config.get("init") or NO_INIT)
    missing = []
    if first.data.kind == "folder" and data is None:
        missing.append(f"--data DIR, the folder {first.data.name!r}")
    for number, manifest in sessions.items():
        if _is_of_folder(manifest) and number not in folders:
            missing.append(f"--shots {number}=DIR, the folder {manifest.data.name!r}")
    if began not in (NO_INIT, IMAGENET) and init is None:
        missing.append(f"--init FILE, the weights {began!r}")
    if missing:
        raise UsageError(f"name what the run was made of: {'; '.join(missing)}")
    for number in folders:
        if number not in sessions or not _is_of_folder(sessions[number]):
            raise UsageError(
                f"--shots {number}: no folder taught a session {number} of what is reproduced; leave it out"
            )
    if init is not None and began == NO_INIT:
        raise UsageError(f"--init {init}: the run began from random weights; leave it out")
    if init is not None and not is_published(init) and not Path(init).is_file():
        raise DataError(f"--init {init}: no such file")
    recorded = first.init_sha256 or (first.weights.sha256 if first.weights else None)
    if init is not None and not is_published(began) and recorded not in (None, file_digest(init)):
        raise DataError(f"--init {init}: not the weights that the run began from, their SHA-256 is another one")
    base = recorded_data(first, data, data_root, first.transform.crop)
    _require_recorded(base_records(base), first.classes, "stage 1", base.location)
    files = {number: find_shots(paths) for number, paths in folders.items()}
    require_all([sessions[number] for number in files], files, folders, "--shots N=DIR")
    shots = {number: shots_there(sessions[number], found) for number, found in files.items()}
    for number, manifest in sessions.items():
        assert number is not None
        if number not in shots:
            named = data if manifest.data.split == LISTED else manifest.data.name
            opened, taught = own_session(folder, first, named, data_root, official_number(parts, number))
            taught = leave_out_shots(taught, opened.location, left_out(manifest.skipped))
            classes = class_records(taught.classes, taught.source, manifest.classes_before, list_shots=True)
            _require_recorded(classes, manifest.classes, f"session {number}", opened.location)
            shots[number] = taught
    return Inputs(base, None if began == NO_INIT else init or began, shots)


def _is_of_folder(manifest: Manifest) -> bool:
    """Tell if the shots of a session were all images of a folder, which has to be named, and not those of a list."""
    return manifest.data.kind == "folder" and manifest.data.split != LISTED


def _require_recorded(
    opened: Sequence[ClassRecord], recorded: Sequence[ClassRecord], stage: str, location: Path
) -> None:
    """Refuse other images than the recorded ones.

    Raises:
        DataError: classes or images differ; the message names classes.
    """
    now, then = ({class_name(record.name): record.digest for record in classes} for classes in (opened, recorded))
    changed = [name for name in {**then, **now} if now.get(name) != then.get(name)]
    if changed or list(now) != list(then):
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        named = ", ".join(map(repr, changed[:NAMED])) or "their order"
        raise DataError(f"{location}: not the images that {stage} was made of; these classes differ: {named}{more}")


# ---- the stages


def _run_again(again: RunFolder, stored: StoredManifest, inputs: Inputs, device: str) -> StoredManifest:
    """Run the next stage in the new run folder, with the settings of the old one."""
    then = stored.manifest
    execution = Execution(
        _device(then, device),
        then.precision,
        save_every=math.inf,
        compile=then.compiled,
        deterministic=then.deterministic,
    )
    with _threads(then, execution.device):
        if then.kind in EDITS:
            return write_edits(again, again.summary(), then.kind, then.edits)
        if then.kind in WITH_SHOTS:
            assert then.session is not None
            chain, shots = again.summary(), inputs.shots[then.session]
            extended = find_extended(chain.classes.known, shots.classes) if then.kind == "extend" else ()
            lesson = Lesson(then.session, shots, then.data, then.classifier, then.views or 1, extended)
            return teach(again, chain, lesson, execution)
        source, base = f"{stored.name}.json", inputs.base
        stage: Literal["pretrain", "distill"] = "pretrain" if then.kind == "pretrain" else "distill"
        with progress.stage(stage), again.locked(COMMAND):
            reproduced: StoredManifest | None
            try:
                if stage == "pretrain":
                    pretrain = recorded_config(PretrainConfig, then.config, source)
                    classes = base_records(base)
                    reproduced = fit_pretrain(
                        Job(stage, again, base, classes, pretrain, execution, then.recipe, init=inputs.init)
                    )
                else:
                    distill, parent = recorded_config(DistillConfig, then.config, source), again.pretrain()
                    classes = base_classes(again, parent, base)
                    reproduced = fit_distill(
                        Job(stage, again, base, classes, distill, execution, then.recipe, parent=parent)
                    )
            except InterruptedTrainingError:
                raise InterruptedCommandError("interrupted") from None
    assert reproduced is not None, "no time limit ends it"
    return reproduced


def _device(then: Manifest, device: str) -> torch.device:
    if device != "auto":
        return choose_device(device)
    if then.device == "cpu" or (then.device == "mps" and torch.backends.mps.is_available()):
        return torch.device(then.device)
    return choose_device("auto")


@contextmanager
def _threads(then: Manifest, device: torch.device) -> Iterator[None]:
    """Compute with the recorded number of threads, on which the rounding of a CPU depends."""
    if device.type != "cpu" or then.threads is None or then.threads > MOST_THREADS:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(then.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---- the comparison


def _compare(folder: RunFolder, stored: StoredManifest, again: RunFolder, newer: StoredManifest) -> Compared:
    recorded, reproduced = stored.manifest.checkpoint.sha256, newer.manifest.checkpoint.sha256
    if recorded == reproduced:
        return Compared(stored.name, recorded, reproduced, 0.0, 0.0, 0.0)
    first, second = folder.tensors(stored), again.tensors(newer)
    statistics, weights = (
        largest_difference(
            {name: each for name, each in first.items() if (name.rpartition(".")[2] in STATISTICS) == wanted},
            {name: each for name, each in second.items() if (name.rpartition(".")[2] in STATISTICS) == wanted},
        )
        for wanted in (True, False)
    )
    return Compared(stored.name, recorded, reproduced, largest_difference(first, second), statistics, weights)


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float | None:
    """Compute the largest difference of two numbers at the same index; None for other tensors, or if not finite."""
    if {name: each.shape for name, each in first.items()} != {name: each.shape for name, each in second.items()}:
        return None
    differences = (float((each.double() - second[name].double()).abs().max()) for name, each in first.items())
    largest = max(differences, default=0.0)
    return largest if math.isfinite(largest) else None


def _differences(then: Manifest, now: Manifest) -> list[str]:
    """List the conditions that are not the same here: those of rounding, machine by machine, and parts of one's own."""
    differences = []
    ran_on: Sequence[Manifest | MachineRecord] = then.machines or [then]
    for number, machine in enumerate(ran_on):
        was, here = _conditions(machine), _conditions(now.machines[-1] if then.machines and now.machines else now)
        others = [name for name in {**was, **here} if was.get(name) != here.get(name)]
        begun = f"from step {then.machines[number].from_step} on " if len(then.machines) > 1 else ""
        differences += [
            f"{begun}{name} {was.get(name) or 'unknown'}, here {here.get(name) or 'none'}" for name in others
        ]
    parts = {**then.plugins, **now.plugins}
    differences += [
        f"{name} of {then.plugins.get(name, 'm2sd')}, here of {now.plugins.get(name, 'm2sd')}"
        for name in parts
        if then.plugins.get(name) != now.plugins.get(name)
    ]
    if now.device != "cpu" and not then.deterministic:
        differences.append("trained without --deterministic, and not on a CPU")
    return differences


def _conditions(machine: Manifest | MachineRecord) -> dict[str, str | None]:
    """Return the conditions on which rounding depends by name, as far as they are recorded."""
    threads = None if machine.threads is None else str(machine.threads)
    known = {**machine.versions, "device": machine.device, "threads": threads}
    if isinstance(machine, MachineRecord):
        known |= {"CPU": machine.cpu, "processes": str(machine.processes)}
    return known
