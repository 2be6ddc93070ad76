"""Teaching the sessions of one run again to the network of another."""

import os
from collections.abc import Sequence
from pathlib import Path

from m2sd_cli.api.edits import find_class, write_edits
from m2sd_cli.api.increment import Lesson, find_extended, teach
from m2sd_cli.api.recorded_data import official_data, official_number
from m2sd_cli.api.taught_shots import find_shots, require_all, shots_there
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.data.datasets import Shots
from m2sd_cli.data.names import class_name, name_key
from m2sd_cli.data.skipping import leave_out_shots
from m2sd_cli.data.sources import FileImages
from m2sd_cli.errors import DataError, RunError, UsageError
from m2sd_cli.inference.classifier import require_classifier, require_covariances
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.method.stage3 import load_builder
from m2sd_cli.paths import expand, expand_given
from m2sd_cli.progress import say
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import EDITS, WITH_SHOTS, EditRecord, Manifest, ManifestSummary
from m2sd_cli.runs.places import read_places, remember_shots
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import class_records, classes_digest, left_out

DONE_TO = {"increment": "teaches", "extend": "extends", "rename": "renames", "forget": "forgets"}


def replay(
    source: Path | str,
    *,
    run: Path | str | None = None,
    shots: Sequence[Path | str] = (),
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> list[StoredManifest]:
    """Teach the sessions of another run again: the same shots, names and classes to be forgotten.

    The shots are found by their SHA-256, whatever their files and folders are called now. Everything is looked for
    before anything is taught. A replay that was cut off goes on where it stopped.

    Args:
        source: the run whose sessions to teach; it is only read.
        run: the run folder to teach, which has session 0.
        shots: folders of the shots, beside those that the other run remembers.
        data_root: the folder of built-in data sets, whose official sessions need no folder.
        device, precision: `auto` chooses; precision `auto` is fp32.

    Raises:
        M2sdError: one of its kinds; sessions taught before it stay.
    """
    old, folder, root = open_run(expand(source, "--from")), open_run(run), expand_given(data_root, "--data-root")
    if old.path.resolve() == folder.path.resolve():
        raise UsageError(f"--from {source}: that is the run itself; name the one to teach with --run")
    execution = Execution(choose_device(device), inference_precision(precision))
    recorded = [stored.manifest for stored in old.chain()]
    done = folder.summary().sessions[1:]
    for number, (mine, theirs) in enumerate(zip(done, recorded[1:], strict=False), start=1):
        if _content(mine) != _content(theirs):
            raise RunError(
                f"{folder.path}: its session {number} is not that of {old.path}; replay needs a run with session 0 "
                f"alone, or with the first sessions of the other one"
            )
    if len(done) >= len(recorded) - 1:
        raise RunError(f"{folder.path}: it has as many sessions as {old.path}; nothing is left to be taught")
    left = recorded[1 + len(done) :]
    _require_names(folder, left)
    found = _find_shots(left, [expand(each, "--shots") for each in shots], read_places(old.path).shots)
    for manifest in left:
        if manifest.kind in WITH_SHOTS and manifest.data.kind == "built-in":
            assert manifest.session is not None
            number = official_number(recorded, manifest.session)
            official = official_data(recorded[0].data, manifest.data.name, root, number)
            official_shots = official.session(number)
            found[manifest.session] = leave_out_shots(official_shots, official.location, left_out(manifest.skipped))
            classes = class_records(
                found[manifest.session].classes,
                found[manifest.session].source,
                manifest.classes_before,
                list_shots=True,
            )
            if classes_digest(classes) != classes_digest(manifest.classes):
                raise DataError(
                    f"{official.location}: its session {number} is not the one that was taught; name another "
                    f"--data-root"
                )
    before = recorded[len(done)]
    kept = _sessions_with_other_classifiers(folder, before, left)
    taught = []
    for manifest in left:
        chain = folder.summary()
        if manifest.kind in EDITS:
            edits = []
            for each in manifest.edits:
                known = find_class(folder, chain, each.name)
                edits.append(EditRecord(index=known.index, name=known.name, new_name=each.new_name))
            taught.append(write_edits(folder, chain, manifest.kind, edits))
        else:
            assert manifest.session is not None
            images = found[manifest.session]
            extended = find_extended(chain.classes.known, images.classes) if manifest.kind == "extend" else []
            same = manifest.classifier == before.classifier or manifest.session in kept
            changed = None if same else manifest.classifier
            lesson = Lesson(manifest.session, images, manifest.data, changed, manifest.views or 1, extended)
            taught.append(teach(folder, chain, lesson, execution))
            if manifest.data.kind == "folder" and isinstance(images.source, FileImages):
                places = dict.fromkeys(path.parent for path in images.source.paths)
                remember_shots(folder.path, manifest.session, [*places])
        before = manifest
    return taught


def _sessions_with_other_classifiers(folder: RunFolder, before: Manifest, left: Sequence[Manifest]) -> set[int | None]:
    """Find the sessions whose new classifier the network of a run cannot answer with, and say so.

    Args:
        folder: the run.
        before: the session before those to teach.
        left: the sessions to teach.

    Raises:
        M2sdError: a classifier is not there, or cannot be imported.
    """
    base = folder.summary(0).base
    kept: set[int | None] = set()
    for manifest, previous in zip(left, [before, *left], strict=False):
        chosen = manifest.classifier
        if chosen is None or chosen == previous.classifier:
            continue
        load_builder(chosen)
        try:
            require_classifier(chosen, base.manifest.backbone.similarity)
            require_covariances(chosen, BaseCheckpoint.read(folder, base).statistics)
        except UsageError:
            kept.add(manifest.session)
            say(f"session {manifest.session}: this network cannot answer with {chosen}; the classifier before it stays")
    return kept


def _require_names(folder: RunFolder, left: Sequence[Manifest]) -> None:
    """Refuse sessions whose names do not go with the classes of a run, before any of them is taught.

    Raises:
        RunError: two classes would have one name, or a class is missing.
    """
    taught = folder.summary().taught()
    for manifest in left:
        number, does = manifest.session, DONE_TO[manifest.kind]
        assert number is not None
        old = [each.name for each in (manifest.classes if manifest.kind == "extend" else manifest.edits)]
        there = {class_name(name): name for name in taught}
        for name in old:
            if class_name(name) not in there:
                raise RunError(
                    f"{folder.path}: no class {name!r} in it, which session {number} {does}; learn or pretrain with "
                    f"its images first"
                )
        if manifest.kind != "extend":
            for name in old:
                del taught[there[class_name(name)]]
        if not taught and manifest.kind == "forget":
            raise RunError(f"{folder.path}: session {number} forgets its last class; learn or pretrain with more first")
        new = [each.name for each in manifest.classes if manifest.kind == "increment"]
        new += [each.new_name for each in manifest.edits if each.new_name is not None]
        by_key = {name_key(name): name for name in taught}
        for name in new:
            same = by_key.get(name_key(name))
            if same is not None:
                how = does if manifest.kind == "increment" else f"{does} a class to"
                raise RunError(
                    f"{folder.path}: class {same!r} is in it since session {taught[same]}, and session {number} {how} "
                    f"{name!r}; learn or pretrain without its images first"
                )
        taught |= dict.fromkeys(new, number)


def _content(part: Manifest | ManifestSummary) -> tuple[object, ...]:
    """Return what a session taught, without what depends on the network."""
    classes = [(class_name(each.name), tuple(each.shot_sha256)) for each in part.classes]
    edits = [(class_name(each.name), each.new_name and class_name(each.new_name)) for each in part.edits]
    return part.kind, classes, edits, part.views


def _find_shots(left: Sequence[Manifest], named: list[Path], remembered: dict[str, list[str]]) -> dict[int, Shots]:
    """Find the shots of all sessions that were taught from folders, by their SHA-256.

    Raises:
        DataError: some are in none of the folders; the message names their classes.
    """
    wanted = [each for each in left if each.kind in WITH_SHOTS and each.data.kind == "folder"]
    known = [Path(path) for each in wanted for path in remembered.get(str(each.session), []) if os.path.isdir(path)]
    known = list(dict.fromkeys(known))
    files = find_shots(named, known) if wanted else {}
    numbers = [each.session for each in wanted if each.session is not None]
    searched = {number: [*named, *map(Path, remembered.get(str(number), []))] for number in numbers}
    require_all(wanted, dict.fromkeys(numbers, files), searched, "--shots")
    return {number: shots_there(each, files) for number, each in zip(numbers, wanted, strict=True)}
