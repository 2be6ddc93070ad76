"""Stage 3, paper section 3.4: the features of its shots teach a new class; backbone and older classes stay."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from m2sd_cli.api.recorded_data import official_data
from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint
from m2sd_cli.data.datasets import Shots
from m2sd_cli.data.folders import folder_name, read_shots
from m2sd_cli.data.names import as_pair, caseless, class_name
from m2sd_cli.data.repeated import list_pictures, say_repeated
from m2sd_cli.data.skipping import check_pictures, say_skipped, skip_bad_shots
from m2sd_cli.data.views import MOST_VIEWS
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.features import shot_features
from m2sd_cli.inference.session import choose_classifier, to_transform
from m2sd_cli.paths import expand, expand_given, text_given
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import DataRecord, Manifest
from m2sd_cli.runs.reader import StoredManifest, session_name
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import (
    class_records,
    data_record,
    plugins_record,
    provenance,
    shots_record,
    skipped_records,
)


@dataclass(frozen=True)
class Lesson:
    """The classes of one session to teach."""

    session: int
    shots: Shots
    data: DataRecord  # the origin of the shots
    classifier: str | None = None  # the classifier of the chain from now on; None for that of the parent
    views: int = 1  # views of each shot, whose mean counts


def increment(
    session: int | None = None,
    shots: Path | str | None = None,
    *,
    run: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
    views: int = 1,
) -> StoredManifest:
    """Teach new classes from a few images each: stage 3.

    Args:
        session: the number of the new session; None for the next one, which is the only one that can be taught.
        shots: DIR with DIR/CLASS/*.jpg; None for a built-in data set's official session.
        run: the run folder.
        data: the built-in data set whose official session to take, if it is not the one of stage 1.
        data_root: the folder of built-in data sets.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: leave out pictures that cannot be read; the manifest lists them.
        classifier: the classifier that the chain answers with from now on; None for the one so far.
        views: the number of views of each shot, whose mean counts: 1 is the shot alone, 2 adds its mirror image, more
            add shifted crops.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if not 1 <= views <= MOST_VIEWS:
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
            raise UsageError("--shots and --data: choose one, your own images or an official session")
        location = expand(shots, "--shots")
        images = read_shots(location)
        record = shots_record(folder_name(location))
    else:
        data_set = official_data(chain.base.manifest.data, text_given(data), root, session)
        location = data_set.location
        images = data_set.session(session)
        record = data_record(data_set)
    check_names(chain.taught(), images.classes)
    if skip_bad:
        images = skip_bad_shots(images, location, check_pictures)
        say_skipped(images.skipped)
    say_repeated(list_pictures(images.source, images.classes, location), chain.taught_pictures())
    return teach(folder, chain, Lesson(session, images, record, classifier, views), execution)


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


def check_names(taught: Mapping[str, int], names: Sequence[str]) -> None:
    """Refuse a class that was taught already.

    Args:
        taught: the session of every class of the chain.
        names: the names of the new classes.

    Raises:
        RunError: one of the names is known already, in whatever Unicode form, or differs from a known one only by
            case; the message says since when.
    """
    by_key = {caseless(name): name for name in taught}
    for name in names:
        same = by_key.get(caseless(name))
        if same is None:
            continue
        since = f"since session {taught[same]}; give the new one another name"
        if class_name(same) == class_name(name):
            raise RunError(f"class {name!r} exists already, {since}")
        raise RunError(f"the classes {as_pair(name, same)}, and {same!r} exists {since}")


def teach(run: RunFolder, chain: ChainSummary, lesson: Lesson, execution: Execution) -> StoredManifest:
    """Teach the classes of one session. The caller has read `chain` and checked session and names.

    Args:
        run: the run folder.
        chain: its chain.
        lesson: the new classes.
        execution: the device and the precision.

    Raises:
        UsageError: the chain cannot answer with that classifier; see `choose_classifier`.
        DataError: a picture cannot be read.
        RunError: a file of the chain is damaged, the folder is locked, or another session was added meanwhile.
    """
    began = time.monotonic()
    base, parent, shots = chain.base, chain.last, lesson.shots
    transform = to_transform(base.manifest.transform)
    classifier = choose_classifier(run, chain, lesson.classifier)
    backbone = BaseCheckpoint.read(run, base).backbone
    backbone.to(execution.device).to(memory_format=torch.channels_last)
    classes = class_records(shots.classes, shots.source, parent.manifest.classes_so_far, list_shots=True)
    means, features = shot_features(
        backbone, shots.source, len(shots.classes), transform, lesson.views, execution.exact_precision
    )
    checkpoint = IncrementCheckpoint(means, torch.split(features, [each.shots * lesson.views for each in classes]))
    with run.locked("increment"):
        if run.newest() != parent.record:
            raise RunError(f"{run.path}: a session was added, removed or replaced meanwhile; try again")
        name = session_name(lesson.session)
        return run.write_manifest(
            name,
            Manifest(
                kind="increment",
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
