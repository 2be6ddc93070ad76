"""New names of classes, and classes to be forgotten: a session each, which computes nothing."""

import time
from difflib import get_close_matches
from pathlib import Path

import torch

from m2sd_cli.api.increment import check_names
from m2sd_cli.data.names import class_name, is_class_name
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.classes import TaughtClass
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import EditRecord, Kind, Manifest
from m2sd_cli.runs.reader import StoredManifest, session_name
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.records import provenance


def rename(old: str, new: str, *, run: Path | str | None = None) -> StoredManifest:
    """Rename a class from a new session on. Earlier sessions stay as they were, and test images may have either name.

    Blanks around the new name are no part of it.

    Raises:
        UsageError: the new name is none.
        RunError: there is no class of the old name, or another one of the new name; or the chain is damaged or locked.
    """
    wanted = class_name(new.strip())
    if not is_class_name(wanted):
        raise UsageError(f"{new!r}: not the name of a class, which a folder could have; choose another")
    folder = open_run(run)
    chain = folder.summary()
    known = find_class(folder, chain, old)
    others = {name: session for name, session in chain.taught().items() if name != known.name}
    if wanted == known.name:
        raise RunError(f"class {known.name!r} has that name already; choose another")
    check_names(others, [wanted], f"to join them, forget {known.name!r}, and teach its photos with --extend")
    return write_edits(folder, chain, "rename", [EditRecord(index=known.index, name=known.name, new_name=wanted)])


def forget(name: str, *, run: Path | str | None = None) -> StoredManifest:
    """Forget a class from a new session on: it is no answer any more, and its name is free.

    Earlier sessions stay as they were, and with them the features of its shots.

    Raises:
        RunError: there is no class of that name, or no other one; or the chain is damaged or locked.
    """
    folder = open_run(run)
    chain = folder.summary()
    known = find_class(folder, chain, name)
    if len(chain.classes.known) == 1:
        raise RunError(f"class {known.name!r} is the only one; a model needs one to answer with")
    return write_edits(folder, chain, "forget", [EditRecord(index=known.index, name=known.name)])


def find_class(run: RunFolder, chain: ChainSummary, name: str) -> TaughtClass:
    """Find the class of a name in the last session of a chain.

    Raises:
        RunError: there is none; the message says if there was one.
    """
    wanted = class_name(name)
    for each in chain.classes.known:
        if class_name(each.name) == wanted:
            return each
    for each in reversed(chain.classes.all):
        if wanted in map(class_name, each.earlier_names) and each.forgotten is None:
            raise RunError(f"{run.path}: no class {name!r} in it any more; it is called {each.name!r} now")
        if wanted == class_name(each.name):
            raise RunError(f"{run.path}: class {name!r} was forgotten in session {each.forgotten}")
    similar = get_close_matches(wanted, [each.name for each in chain.classes.known], n=1)
    meant = f" (did you mean {similar[0]!r}?)" if similar else ""
    raise RunError(f"{run.path}: no class {name!r} in it{meant}; 'm2sd sessions --json' lists them all")


def write_edits(run: RunFolder, chain: ChainSummary, kind: Kind, edits: list[EditRecord]) -> StoredManifest:
    """Write a session that changes names alone. The caller has read `chain` and checked the edits.

    Raises:
        RunError: the folder is locked or cannot be written, or another session was added meanwhile.
    """
    began = time.monotonic()
    base, parent = chain.base.manifest, chain.last
    with run.locked(f"sessions {kind}"):
        if run.newest() != parent.record:
            raise RunError(f"{run.path}: a session was added, removed or replaced meanwhile; try again")
        session = len(chain.sessions)
        name = session_name(session)
        return run.write_manifest(
            name,
            Manifest(
                kind=kind,
                session=session,
                parent=parent.record,
                checkpoint=run.write_checkpoint(name, {}),
                classes_before=parent.manifest.classes_so_far,
                classes=[],
                edits=edits,
                data=base.data,
                backbone=base.backbone,
                transform=base.transform,
                config={},
                classifier=parent.manifest.classifier,
                seed=base.seed,
                plugins=parent.manifest.plugins,
                **provenance(Execution(torch.device("cpu")), time.monotonic() - began),
            ),
        )
