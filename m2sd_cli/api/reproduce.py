"""Running a chain once more from what its manifests say, and comparing the weights."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Literal

import torch
from torch import Tensor

from m2sd_cli import progress
from m2sd_cli.api.distill import base_classes, fit_distill
from m2sd_cli.api.increment import Lesson, teach
from m2sd_cli.api.pretrain import fit_pretrain
from m2sd_cli.api.recorded_data import official_data, recorded_data
from m2sd_cli.config import NO_INIT, DistillConfig, PretrainConfig, recorded_config
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.folders import read_shots
from m2sd_cli.data.names import class_name
from m2sd_cli.data.skipping import leave_out_shots
from m2sd_cli.errors import DataError, InterruptedCommandError, InterruptedTrainingError, RunError, UsageError
from m2sd_cli.inference.device import choose_device
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import ClassRecord, Manifest
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.initial_weights import IMAGENET
from m2sd_cli.training.job import Job
from m2sd_cli.training.records import base_records, class_records, left_out

COMMAND = "sessions reproduce"
MOST_THREADS = 1024  # that a manifest can ask for
NAMED = 3  # classes


@dataclass(frozen=True)
class Compared:
    """A stage or session, as it is recorded and as it came out now."""

    name: str
    recorded: str  # SHA-256 of the checkpoint
    reproduced: str
    difference: float | None  # the largest between two numbers; None if the tensors are others, or not finite

    @property
    def same(self) -> bool:
        """Whether the two checkpoints are equal, byte by byte."""
        return self.recorded == self.reproduced


@dataclass(frozen=True)
class Reproduction:
    """A whole chain, compared."""

    stages: list[Compared]
    provenance: list[str]  # in which the first stage that differs was made otherwise than now

    @property
    def same(self) -> bool:
        """Whether every stage is."""
        return all(each.same for each in self.stages)


@dataclass(frozen=True)
class Material:
    """What the stages were made of; it is at hand, and the recorded one."""

    base: DataSet
    init: str | None
    shots: dict[int, Shots]  # by session


def reproduce(
    *,
    run: Path | str | None = None,
    session: int | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    shots: Mapping[int, Path | str] | None = None,
    init: str | None = None,
    device: str = "auto",
    keep: Path | str | None = None,
) -> Reproduction:
    """Run a chain once more, all stages, and compare the checkpoints. The run itself is only read.

    Args:
        run: the run folder.
        session: the last session to run; None for the newest.
        data: the folder of pretrain; not needed for a built-in data set.
        data_root: where built-in data sets lie.
        shots: the folder of each session that was taught from one.
        init: the file that stage 1 began from, if it did.
        device: `auto` is the recorded one, if it is here.
        keep: a folder to be made for what comes out; None to keep nothing.

    Raises:
        M2sdError: one of its kinds; nothing was changed or kept.
    """
    folder = open_run(run)
    links = _links(folder, session)
    place = None if keep is None else _free_place(Path(keep), folder)
    for stored in links:
        folder.tensors(stored)  # hours would be lost if what to compare with turned out to be damaged
    material = _gather(links, data, data_root, dict(shots or {}), init)
    stages: list[Compared] = []
    provenance: list[str] = []
    with _workshop(place) as work:
        again = RunFolder(work)
        for stored in links:
            made = _make(again, stored, material, device)
            compared = _compare(folder, stored, again, made)
            if not compared.same and not provenance:
                provenance = _differences(stored.manifest, made.manifest)
            stages.append(compared)
    return Reproduction(stages, provenance)


def _links(folder: RunFolder, session: int | None) -> list[StoredManifest]:
    """Stage 1 and the sessions after it; of a run that has no session yet, stage 1."""
    pretrain = folder.pretrain()
    return [pretrain] if session is None and not folder.sessions() else [pretrain, *folder.chain(session)]


def _free_place(keep: Path, folder: RunFolder) -> Path:
    if os.path.lexists(keep):
        raise UsageError(f"--keep {keep}: it exists already; name a folder that does not")
    if not keep.parent.is_dir():
        raise UsageError(f"--keep {keep}: no such folder as {keep.parent}")
    if keep.resolve().is_relative_to(folder.path.resolve()):
        raise UsageError(f"--keep {keep}: that is inside the run; name a folder elsewhere")
    return keep


@contextmanager
def _workshop(place: Path | None) -> Iterator[Path]:
    """A folder to work in; it becomes `place` if all goes well, and else is gone."""
    beside = Path(gettempdir()) if place is None else place.parent
    try:
        temporary = TemporaryDirectory(prefix=".m2sd-reproduce-", dir=beside, ignore_cleanup_errors=True)
    except OSError as error:
        raise RunError(f"{beside}: no folder can be made in it ({error.strerror or error})") from None
    with temporary as name:
        work = Path(name) / "run"
        yield work
        if place is not None:
            try:
                os.replace(work, place)
            except OSError as error:
                raise RunError(f"{place}: could not be made ({error.strerror or error})") from None


# ---- what is needed


def _gather(
    links: Sequence[StoredManifest],
    data: str | None,
    data_root: Path | None,
    folders: dict[int, Path | str],
    init: str | None,
) -> Material:
    """All that the stages were made of.

    Raises:
        UsageError: something has to be named, or was named for nothing; the message lists all that is missing.
        DataError: something is not there, or is not what is recorded.
    """
    first, sessions = links[0].manifest, {stored.manifest.session: stored.manifest for stored in links[2:]}
    began = str(first.config.get("init") or NO_INIT)
    missing = []
    if first.data.kind == "folder" and data is None:
        missing.append(f"--data DIR, the folder {first.data.name!r}")
    for number, manifest in sessions.items():
        if manifest.data.kind == "folder" and number not in folders:
            missing.append(f"--shots {number}=DIR, the folder {manifest.data.name!r}")
    if began not in (NO_INIT, IMAGENET) and init is None:
        missing.append(f"--init FILE, the weights {began!r}")
    if missing:
        raise UsageError(f"name what the run was made of: {'; '.join(missing)}")
    for number in folders:
        if number not in sessions or sessions[number].data.kind != "folder":
            raise UsageError(
                f"--shots {number}: no folder taught a session {number} of what is reproduced; leave it out"
            )
    if init is not None and began == NO_INIT:
        raise UsageError(f"--init {init}: the run began from random weights; leave it out")
    if init is not None and init != IMAGENET and not Path(init).is_file():
        raise DataError(f"--init {init}: no such file")
    base = recorded_data(first, data, data_root, first.transform.crop)
    _require_recorded(base_records(base), first.classes, "stage 1", base.location)
    shots = {}
    for number, manifest in sessions.items():
        assert number is not None
        if manifest.data.kind == "folder":
            where = Path(folders[number])
            taught = read_shots(where)
        else:
            official = official_data(first.data, manifest.data.name, data_root, number)
            where, taught = official.location, official.session(number)
        taught = leave_out_shots(taught, where, left_out(manifest.skipped))
        found = class_records(taught.classes, taught.source, manifest.classes_before, list_shots=True)
        _require_recorded(found, manifest.classes, f"session {number}", where)
        shots[number] = taught
    return Material(base, None if began == NO_INIT else init or began, shots)


def _require_recorded(found: Sequence[ClassRecord], recorded: Sequence[ClassRecord], stage: str, where: Path) -> None:
    """Refuse other images.

    Raises:
        DataError: they are not the recorded ones; the message names classes.
    """
    now, then = ({class_name(each.name): each.digest for each in classes} for classes in (found, recorded))
    changed = [name for name in {**then, **now} if now.get(name) != then.get(name)]
    if changed or list(now) != list(then):
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        named = ", ".join(map(repr, changed[:NAMED])) or "their order"
        raise DataError(f"{where}: not the images that {stage} was made of; these classes differ: {named}{more}")


# ---- the stages


def _make(again: RunFolder, stored: StoredManifest, material: Material, device: str) -> StoredManifest:
    """Run one stage more in the new run folder, with the settings of the old one."""
    then = stored.manifest
    execution = Execution(
        _device(then, device),
        then.precision,
        save_every=math.inf,
        compile=then.compiled,
        deterministic=then.deterministic,
    )
    with _threads(then, execution.device):
        if then.kind == "increment":
            assert then.session is not None
            lesson = Lesson(then.session, material.shots[then.session], then.data, then.classifier, then.views or 1)
            return teach(again, again.summary(), lesson, execution)
        source, base = f"{stored.name}.json", material.base
        stage: Literal["pretrain", "distill"] = "pretrain" if then.kind == "pretrain" else "distill"
        with progress.stage(stage), again.locked(COMMAND):
            made: StoredManifest | None
            try:
                if stage == "pretrain":
                    pretrain = recorded_config(PretrainConfig, then.config, source)
                    classes = base_records(base)
                    made = fit_pretrain(
                        Job(stage, again, base, classes, pretrain, execution, then.recipe, init=material.init)
                    )
                else:
                    distill, parent = recorded_config(DistillConfig, then.config, source), again.pretrain()
                    classes = base_classes(again, parent, base)
                    made = fit_distill(Job(stage, again, base, classes, distill, execution, then.recipe, parent=parent))
            except InterruptedTrainingError:
                raise InterruptedCommandError("interrupted") from None
    assert made is not None, "no time limit ends it"
    return made


def _device(then: Manifest, device: str) -> torch.device:
    if device != "auto":
        return choose_device(device)
    if then.device == "cpu" or (then.device == "mps" and torch.backends.mps.is_available()):
        return torch.device(then.device)
    return choose_device("auto")


@contextmanager
def _threads(then: Manifest, device: torch.device) -> Iterator[None]:
    """As many threads as computed it then: how a CPU rounds depends on them."""
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


def _compare(folder: RunFolder, stored: StoredManifest, again: RunFolder, made: StoredManifest) -> Compared:
    recorded, reproduced = stored.manifest.checkpoint.sha256, made.manifest.checkpoint.sha256
    difference: float | None = 0.0
    if recorded != reproduced:
        difference = largest_difference(folder.tensors(stored), again.tensors(made))
    return Compared(stored.name, recorded, reproduced, difference)


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float | None:
    """The largest between two numbers at the same place; None if the tensors are others, or not finite."""
    if {name: each.shape for name, each in first.items()} != {name: each.shape for name, each in second.items()}:
        return None
    largest = max(float((each.double() - second[name].double()).abs().max()) for name, each in first.items())
    return largest if math.isfinite(largest) else None


def _differences(then: Manifest, now: Manifest) -> list[str]:
    """What was otherwise than it is here, of what rounding depends on."""
    pairs: list[tuple[str, object, object]] = [
        (name, then.versions.get(name), now.versions.get(name)) for name in {**then.versions, **now.versions}
    ]
    pairs += [("device", then.device, now.device), ("threads", then.threads, now.threads)]
    found = [f"{name} {was or 'unknown'}, here {here or 'none'}" for name, was, here in pairs if was != here]
    if now.device != "cpu" and not then.deterministic:
        found.append("trained without --deterministic, and not on a CPU")
    return found
