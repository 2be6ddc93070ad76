"""Stage 3, paper section 3.4: a new class is known by the features of its shots; everything else stays as it is."""

import time
from collections.abc import Mapping, Sequence

import torch

from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint
from m2sd_cli.data.datasets import Shots
from m2sd_cli.data.names import as_pair, caseless, class_name
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.inference.features import shot_features
from m2sd_cli.inference.session import choose_classifier, to_transform
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import DataRecord, Manifest
from m2sd_cli.runs.reader import StoredManifest, session_name
from m2sd_cli.training.records import class_records, provenance, skipped_records


def check_session(run: RunFolder, newest: int, session: int) -> None:
    """A chain grows by one session at a time.

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
    """A class is taught once.

    Args:
        taught: the session of every class of the chain.
        names: of the new classes.

    Raises:
        RunError: one of the names is known already, in whatever Unicode form, or differs from a known one only by
            case; the message says since when.
    """
    known = {caseless(name): name for name in taught}
    for name in names:
        same = known.get(caseless(name))
        if same is None:
            continue
        since = f"since session {taught[same]}; give the new one another name"
        if class_name(same) == class_name(name):
            raise RunError(f"class {name!r} exists already, {since}")
        raise RunError(f"the classes {as_pair(name, same)}, and {same!r} exists {since}")


def run_increment(
    run: RunFolder,
    chain: ChainSummary,
    session: int,
    shots: Shots,
    data: DataRecord,
    device: torch.device,
    precision: str,
    classifier: str | None = None,
    views: int = 1,
) -> StoredManifest:
    """Teach one session's classes. The caller has read `chain` and checked session and names.

    Args:
        run, chain: what to add to.
        session: the new session's number.
        shots: its images.
        data: where they came from.
        device, precision: to compute in.
        classifier: what the chain answers with from now on; None for the parent's.
        views: of each shot to take the mean of.

    Raises:
        UsageError: the chain cannot answer with that classifier; see `choose_classifier`.
        DataError: a picture cannot be read.
        RunError: a file of the chain is damaged, the folder is locked, or another session was added meanwhile.
    """
    began = time.monotonic()
    base, parent = chain.base, chain.last
    transform = to_transform(base.manifest.transform)
    chosen = choose_classifier(run, chain, classifier)
    backbone = BaseCheckpoint.read(run, base).backbone
    backbone.to(device).to(memory_format=torch.channels_last)
    classes = class_records(shots.classes, shots.source, parent.manifest.classes_so_far, list_shots=True)
    means, features = shot_features(backbone, shots.source, len(shots.classes), transform, views, precision)
    checkpoint = IncrementCheckpoint(means, torch.split(features, [each.shots * views for each in classes]))
    with run.locked("increment"):
        if run.newest() != parent.record:
            raise RunError(f"{run.path}: a session was added, removed or replaced meanwhile; try again")
        name = session_name(session)
        return run.write_manifest(
            name,
            Manifest(
                kind="increment",
                session=session,
                parent=parent.record,
                checkpoint=run.write_checkpoint(name, checkpoint.tensors()),
                classes_before=parent.manifest.classes_so_far,
                classes=classes,
                data=data,
                backbone=base.manifest.backbone,
                transform=base.manifest.transform,
                config={},
                classifier=chosen,
                views=views,
                seed=base.manifest.seed,
                skipped=skipped_records(shots.skipped),
                **provenance(device, precision, time.monotonic() - began),
            ),
        )
