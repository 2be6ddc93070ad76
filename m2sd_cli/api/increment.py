"""Stage 3, paper section 3.4: the features of its shots teach a new class; backbone and older classes stay.

`extend` teaches more shots of classes that are there, which count together with the earlier ones.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from m2sd_cli.api.recorded_data import official_number, own_session
from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint
from m2sd_cli.data.datasets import DataSet, Shots
from m2sd_cli.data.folders import folder_name, read_class, read_shots
from m2sd_cli.data.names import as_pair, class_name, name_key
from m2sd_cli.data.repeated import list_images, say_repeated
from m2sd_cli.data.skipping import check_images, say_skipped, skip_bad_shots
from m2sd_cli.data.sources import FileImages
from m2sd_cli.data.views import MOST_VIEWS
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.inference.classifier import choose_classifier, require_covariances, try_classifier
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.features import shot_features
from m2sd_cli.inference.session import to_transform
from m2sd_cli.paths import expand, expand_given, text_given
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.classes import TaughtClass
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import ClassName, DataRecord, Kind, Manifest, ManifestSummary
from m2sd_cli.runs.places import remember_shots
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest, session_name
from m2sd_cli.tables import CLASSIFIERS
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import (
    class_records,
    data_record,
    plugins_record,
    provenance,
    shots_record,
    skipped_records,
)

NAMED = 3  # classes in a message


@dataclass(frozen=True)
class Lesson:
    """The shots of one session to teach."""

    session: int
    shots: Shots
    data: DataRecord  # the origin of the shots
    classifier: str | None = None  # the classifier of the chain from now on; None for that of the parent
    views: int = 1  # views of each shot, whose mean counts
    extended: Sequence[TaughtClass] = ()  # the classes that they are more shots of, in the order of theirs


def increment(
    session: int | None = None,
    shots: Path | str | Mapping[str, Iterable[Path | str]] | None = None,
    *,
    run: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
    views: int | None = None,
    extend: bool = False,
) -> StoredManifest:
    """Teach new classes from a few images each: stage 3.

    Args:
        session: the number of the new session; None for the next one, which is the only one that can be taught.
        shots: DIR with DIR/CLASS/*.jpg; or one class with its images, files and folders of them; None for a built-in
            data set's official session.
        run: the run folder.
        data: the built-in data set whose official session to take, if it is not the one of stage 1.
        data_root: the folder of built-in data sets.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: leave out images that cannot be read; the manifest lists them.
        classifier: the classifier that the chain answers with from now on; None for the one so far.
        views: the number of views of each shot, whose mean counts: 1 is the shot alone, 2 adds its mirror image, more
            add shifted crops. None is 1, and in extending the number that the classes were taught with.
        extend: teach more shots of classes that are there, base classes too, and no new class.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if views is not None and not 1 <= views <= MOST_VIEWS:
        raise UsageError(f"--views {views}: 1 to {MOST_VIEWS}")
    folder, root = open_run(run), expand_given(data_root, "--data-root")
    execution = Execution(choose_device(device), inference_precision(precision))
    chain = folder.summary()
    choose_classifier(folder, chain, classifier)
    session = len(chain.sessions) if session is None else session
    check_session(folder, len(chain.sessions) - 1, session)
    if views == chain.base.manifest.transform.views == 2:
        raise UsageError("--views 2: this chain sees every image and its mirror image already; leave it out")
    if shots is not None:
        if data is not None:
            raise UsageError("--shots and --data: choose one, your own images or a session of a data set")
        images, location, places = _open_shots(shots)
        record = shots_record(folder_name(location), named=not isinstance(shots, (str, Path)))
    else:
        if extend:
            raise UsageError("--extend: name the folder of the shots with --shots DIR")
        number = official_number(chain.sessions, session)
        assert chain.base.manifest.parent is not None
        first = folder.read(PRETRAIN, chain.base.manifest.parent.sha256).manifest
        data_set, images = own_session(folder, first, text_given(data), root, number)
        location, places = data_set.location, listed_folders(data_set, images)
        record = data_record(data_set)
    extended: list[TaughtClass] = []
    if extend:
        extended = find_extended(chain.classes.known, images.classes)
        views = choose_views(extended, views)
    else:
        check_names(chain.taught(), images.classes)
    if skip_bad:
        images = skip_bad_shots(images, location, check_images)
        say_skipped(images.skipped)
    say_repeated(list_images(images.source, images.classes, location), list_taught(folder, chain))
    stored = teach(folder, chain, Lesson(session, images, record, classifier, views or 1, extended), execution)
    if places:
        remember_shots(folder.path, session, places)
    return stored


def list_taught(run: RunFolder, chain: ChainSummary) -> dict[str, str]:
    """Return the class and session of every shot and every base image of a folder as text, by its SHA-256.

    Images to test with are not listed, nor are those of forgotten classes.
    """
    if chain.base.manifest.data.kind != "folder":  # stage 1 lists the images of a folder alone
        return chain.taught_images()
    assert chain.base.manifest.parent is not None
    files = run.read(PRETRAIN, chain.base.manifest.parent.sha256).manifest.files
    known = {name for each in chain.classes.known if each.session == 0 for name in (each.name, *each.earlier_names)}
    base = ((class_name(PurePosixPath(file).parent.name), sha256) for file, sha256 in files.items())
    return {sha256: f"{name!r}, session 0" for name, sha256 in base if sha256 and name in known} | chain.taught_images()


def _open_shots(shots: Path | str | Mapping[str, Iterable[Path | str]]) -> tuple[Shots, Path, list[Path]]:
    """Open the shots that a person names.

    Returns:
        the shots, the folder that they all lie below, and the folders that they lie in.
    """
    if isinstance(shots, (str, Path)):
        folder = expand(shots, "--shots")
        return read_shots(folder), folder, [folder]
    if len(shots) != 1:
        raise UsageError("shots: name one class with its images; several lie in a folder with a folder a class")
    (name, named), *_ = shots.items()
    paths = [expand(each, "images") for each in ([named] if isinstance(named, (str, Path)) else named)]
    if not paths:
        raise UsageError(f"--class {name}: name its images, files or folders")
    images = read_class(name, paths)
    folders = list(dict.fromkeys((path if path.is_dir() else path.parent).absolute() for path in paths))
    return images, Path(os.path.commonpath(folders)), folders


def listed_folders(data: DataSet, shots: Shots) -> list[Path]:
    """List the folders in which the shots of a session lie that a list names; none of another data set."""
    if data.listed is None or not isinstance(shots.source, FileImages):
        return []
    return list(dict.fromkeys(path.parent for path in shots.source.paths))


def check_session(run: RunFolder, newest: int, session: int) -> None:
    """Refuse a session that is not the next one.

    Raises:
        UsageError: session 0, which distill makes, or a negative number.
        RunError: the session exists already, or its predecessor does not.
    """
    if session < 1:
        raise UsageError(f"--session {session}: incremental sessions count from 1; session 0 is made by 'm2sd distill'")
    if session <= newest:
        raise RunError(
            f"{run.path}: session {session} exists already; the next one is session {newest + 1}, and "
            f"'m2sd sessions undo' removes the last"
        )
    if session > newest + 1:
        raise RunError(f"{run.path}: session {session} needs session {session - 1}; the next one is {newest + 1}")


def check_names(
    taught: Mapping[str, int], names: Sequence[str], way_out: str = "--extend adds these shots to its own"
) -> None:
    """Refuse a class that was taught already.

    Args:
        taught: the session of every class of the chain.
        names: the names of the new classes.
        way_out: words on it, for the message.

    Raises:
        RunError: one of the names is known already, in whatever Unicode form, or differs from a known one only by
            case or spaces; the message says since when.
    """
    by_key = {name_key(name): name for name in taught}
    for name in names:
        same = by_key.get(name_key(name))
        if same is None:
            continue
        if class_name(same) == class_name(name):
            new = any(name_key(each) not in by_key for each in names)
            raise RunError(
                f"class {name!r} exists already, since session {taught[same]}; {way_out}"
                f"{', from a folder without the new classes' if new else ''}"
            )
        raise RunError(
            f"the classes {as_pair(name, same)}, and {same!r} exists since session {taught[same]}; write it so, and "
            f"{way_out}"
        )


def find_extended(known: Sequence[TaughtClass], names: Sequence[str]) -> list[TaughtClass]:
    """Find the classes that are to have more shots, in the order of their names.

    Raises:
        RunError: the chain does not know one of them; the message names these.
    """
    by_name = {class_name(each.name): each for each in known}
    missing = [name for name in names if class_name(name) not in by_name]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise RunError(
            f"--extend is for classes that are there; not there: {', '.join(map(repr, missing[:NAMED]))}{more}; teach "
            f"these without it{', from a folder of their own' if len(missing) < len(names) else ''}"
        )
    return [by_name[class_name(name)] for name in names]


def choose_views(extended: Sequence[TaughtClass], views: int | None) -> int:
    """Choose the views of more shots: those that the classes were taught with, so that every shot counts the same.

    Raises:
        UsageError: the classes were taught with different ones, or others are asked for.
    """
    found = {each.views or 1: each.name for each in reversed(extended)}
    if len(found) > 1:
        (first, one), (second, other) = list(found.items())[:2]
        raise UsageError(
            f"--extend: {one!r} was taught with views {first} and {other!r} with {second}; extend them one at a time"
        )
    taught = next(iter(found))
    if views not in (None, taught):
        raise UsageError(f"--views {views}: {found[taught]!r} was taught with {taught}; leave --views out")
    return taught


def teach(run: RunFolder, chain: ChainSummary, lesson: Lesson, execution: Execution) -> StoredManifest:
    """Teach the shots of one session. The caller has read `chain` and checked session, names and views.

    Args:
        run: the run folder.
        chain: its chain.
        lesson: the classes and their shots.
        execution: the device and the precision.

    Raises:
        UsageError: the chain cannot answer with that classifier; see `choose_classifier`.
        M2sdError: the classifier is of another package, and fails with these classes.
        DataError: an image cannot be read.
        RunError: a file of the chain is damaged, the folder is locked, or another session was added meanwhile.
    """
    began = time.monotonic()
    base, parent, shots = chain.base, chain.last, lesson.shots
    transform = to_transform(base.manifest.transform)
    classifier = choose_classifier(run, chain, lesson.classifier)
    checkpoint_0 = BaseCheckpoint.read(run, base)
    require_covariances(classifier, checkpoint_0.statistics)
    backbone = checkpoint_0.backbone
    backbone.to(execution.device).to(memory_format=torch.channels_last)
    classes = class_records(shots.classes, shots.source, parent.manifest.classes_so_far, list_shots=True)
    if lesson.extended:
        classes = [
            record.model_copy(update={"index": each.index, "name": each.name})
            for record, each in zip(classes, lesson.extended, strict=True)
        ]
    means, features = shot_features(
        backbone, shots.source, len(shots.classes), transform, lesson.views, execution.exact_precision
    )
    checkpoint = IncrementCheckpoint(means, torch.split(features, [each.shots * lesson.views for each in classes]))
    kind: Kind = "extend" if lesson.extended else "increment"
    if CLASSIFIERS.is_foreign(classifier):
        part = ManifestSummary(
            kind=kind,
            session=lesson.session,
            parent=parent.record,
            checkpoint=parent.manifest.checkpoint,  # stands in for the one that is written below
            classes_before=parent.manifest.classes_so_far,
            classes=[ClassName(each.index, each.name, each.shots) for each in classes],
            views=lesson.views,
        )
        try_classifier(classifier, run, chain, checkpoint_0, part, checkpoint)
    with run.locked("increment"):
        if run.newest() != parent.record:
            raise RunError(f"{run.path}: a session was added, removed or replaced meanwhile; try again")
        name = session_name(lesson.session)
        return run.write_manifest(
            name,
            Manifest(
                kind=kind,
                session=lesson.session,
                parent=parent.record,
                checkpoint=run.write_checkpoint(name, checkpoint.tensors()),
                classes_before=parent.manifest.classes_so_far,
                classes=classes,
                data=lesson.data,
                backbone=base.manifest.backbone,
                transform=base.manifest.transform,
                config={},
                classifier=classifier,
                views=lesson.views,
                seed=base.manifest.seed,
                skipped=skipped_records(shots.skipped),
                plugins=plugins_record(lesson.data, base.manifest.backbone.name, classifier),
                **provenance(execution, time.monotonic() - began),
            ),
        )
