"""A run folder: adding to the end of its chain, and taking from it.

A checkpoint and its manifest are written into `incoming` first, and so may those of a whole new chain be. Then
`head.json` names the last manifest as the newest: from that moment on it is part of the chain with those before it, and
sessions that followed it are not. Only then are the files moved into the folder. A reader looks into `incoming` first,
and the next writer moves the files that a killed one has left there. At every moment there is the old chain or the new
one.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError, os_errors_as
from m2sd_cli.paths import environment_path, expand
from m2sd_cli.runs.chain import ChainReader
from m2sd_cli.runs.checksummed import misread
from m2sd_cli.runs.files import (
    CHECKPOINT_LIMIT,
    TEXT_LIMIT,
    encode_tensors,
    read_bounded,
    sync_folder,
    unfinished,
    write_atomically,
)
from m2sd_cli.runs.lock import LOCK, WRITER, lock_folder
from m2sd_cli.runs.manifest import FileRecord, Manifest, ManifestSummary, NewestPointer
from m2sd_cli.runs.places import PLACES
from m2sd_cli.runs.reader import POINTER, PRETRAIN, StoredManifest, session_name, session_number
from m2sd_cli.runs.training_log import LOG

RUN_VARIABLE = "M2SD_RUN"
STATE: Final = "state.json"  # of a training under way
TUNING: Final = "tuning.json"  # of a fine-tuning under way
TRIAL, WHOLE = OF_TUNING = "trial", "whole"  # trainings of a fine-tuning, and their folders
OWN: Final = re.compile(  # names of its files
    rf"({PRETRAIN}|session-\d{{3,}})\.(json|safetensors)|step-\d{{9,}}\.safetensors|"
    + "|".join(map(re.escape, (POINTER, LOCK, WRITER, PLACES, LOG, STATE, TUNING)))
)


def default_path() -> Path:
    """Return $M2SD_RUN, else ./m2sd-run."""
    return environment_path(RUN_VARIABLE) or Path("m2sd-run")


class RunFolder(ChainReader):
    """One run on disk. Reading verifies; writing needs `locked`.

    Args:
        path: the folder; it need not exist before something is written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._held_back: list[FileRecord] | None = None  # within `at_once` alone

    @contextmanager
    def locked(self, command: str, damaged: bool = False) -> Iterator[None]:
        """Be the only writer, after finishing or clearing the work of a killed one; see `lock_folder`.

        Args:
            command: that writes, for messages of others.
            damaged: leave that work as it is: `head.json`, which tells of it, may be damaged.

        Raises:
            RunError: another process is writing, or the folder cannot be written to.
            DamagedError: `head.json` is damaged, or a manifest that it names and that was not in its place yet.
        """
        with lock_folder(self.path, command):
            with os_errors_as(RunError, f"{self.path}: cannot be written to"):
                for folder in (self._incoming, self.training, self.tuning):
                    if folder.is_symlink():
                        raise DamagedError(
                            f"{folder}: a link; a run folder holds its folders themselves, so put the folder there"
                        )
                if not damaged:
                    self._settle()
                    self._sweep()
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Have all manifests that are written meanwhile become the newest together, at the end.

        They are read by their hashes until then. After an error the chain is as it was.

        Raises:
            RunError: as `write_manifest` does.
        """
        written: list[FileRecord] = []
        self._held_back = written
        try:
            yield
        finally:
            self._held_back = None
        if written:
            self._become_newest(written[-1])

    @property
    def holds_back(self) -> bool:
        """True within `at_once`, at whose end alone manifests become the newest."""
        return self._held_back is not None

    def owns(self, path: Path) -> bool:
        """Tell whether a path is a file of the chain or of a training under way, which nothing else may write."""
        file, home = path.resolve(), self.path.resolve()
        # A later session may have any number, and a folder of that name would stand beside its files.
        named = file.name.startswith((f"{PRETRAIN}.", "session-")) or OWN.fullmatch(file.name) is not None
        inside = any(file.is_relative_to(home / folder.name) for folder in (self.training, self.tuning, self._incoming))
        return (file.parent == home and named) or inside

    def write_checkpoint(self, name: str, tensors: dict[str, Tensor]) -> FileRecord:
        """Write the checkpoint of a stage or session; until its manifest follows, nothing refers to it.

        Raises:
            RunError: it could not be written, or is larger than any file that is read.
        """
        content, taught = encode_tensors(tensors), name not in (PRETRAIN, session_name(0))
        if len(content) > CHECKPOINT_LIMIT:
            way = "teach fewer images at a time, or fewer --views of them" if taught else "take a smaller --backbone"
            raise RunError(
                f"{self.path}: {name} takes {len(content) / 2**30:.1f} GiB, and {CHECKPOINT_LIMIT / 2**30:.0f} are the "
                f"most; {way}"
            )
        return self._write(f"{name}.safetensors", content)

    def write_manifest(self, name: str, manifest: Manifest) -> StoredManifest:
        """Write a manifest, after its checkpoint, as the newest of the chain; sessions that followed it are removed.

        Raises:
            RunError: it could not be written, and the chain is unchanged; or it was written and could not be moved into
                the folder, which the next command does.
        """
        return StoredManifest(manifest, self._add(name, manifest.model_dump_json(indent=1).encode() + b"\n"))

    def copy_pretrain(self, source: ChainReader) -> None:
        """Copy the finished stage 1 of another run, byte by byte, to begin this one with it.

        Raises:
            RunError: the other run has none, or this one could not be written.
            DamagedError: a file of the other run is damaged.
        """
        stored = source.pretrain()
        self.copy_checkpoint(source, stored)
        self._add(PRETRAIN, source.content(stored.record, TEXT_LIMIT))

    def copy_checkpoint(self, source: ChainReader, stored: StoredManifest) -> FileRecord:
        """Copy the checkpoint of a stage or session of another run; until its manifest follows, nothing refers to it.

        Raises:
            RunError: it could not be written.
            DamagedError: the other run's checkpoint is damaged.
        """
        checkpoint = stored.manifest.checkpoint
        return self._write(checkpoint.file, source.content(checkpoint, CHECKPOINT_LIMIT))

    def _add(self, name: str, manifest: bytes) -> FileRecord:
        if len(manifest) > TEXT_LIMIT:
            raise RunError(
                f"{self.path}: {name}.json takes {len(manifest) / 2**20:.0f} MiB, and {TEXT_LIMIT >> 20} are the most; "
                f"take fewer images"
            )
        record = self._write(f"{name}.json", manifest)
        if self._held_back is None:
            self._become_newest(record)
        else:
            self._held_back.append(record)
        return record

    def _become_newest(self, record: FileRecord) -> None:
        self._point(record)
        try:
            self._settle()
        except OSError as error:
            raise RunError(
                f"{self.path}: {record.file} is part of it now, but not yet in its place ({error.strerror or error}); "
                f"the next command moves it there"
            ) from None

    def _write(self, file: str, content: bytes) -> FileRecord:
        with os_errors_as(RunError, f"{self._incoming}: cannot be made"):
            self._incoming.mkdir(exist_ok=True)
            sync_folder(self.path)
        return FileRecord(file=file, sha256=write_atomically(self._incoming / file, content))

    def _point(self, record: FileRecord) -> None:
        write_atomically(self.path / POINTER, NewestPointer(manifest=record).encoded())

    def _settle(self) -> None:
        """Move what has become part of the chain into the folder, and remove the files that it has replaced."""
        newest = self.newest()
        coming = self._coming(newest)
        if not coming:
            return
        for manifest in coming:
            checkpoint = manifest.with_suffix(".safetensors")
            if checkpoint.exists():
                os.replace(checkpoint, self.path / checkpoint.name)
                sync_folder(self.path)
        number = session_number(newest)
        self._remove_after(number)
        if number <= 0:
            self.remove_training()  # a stage that trains has ended
        for manifest in reversed(coming):  # the newest last, as it tells of those before it
            os.replace(manifest, self.path / manifest.name)
        sync_folder(self.path)
        _remove_own(self._incoming)

    def _coming(self, newest: FileRecord | None) -> list[Path]:
        """Find the manifests in `incoming` that are part of the chain, the newest first.

        Raises:
            DamagedError: one is damaged, and so is the chain without it.
        """
        found: list[Path] = []
        while newest is not None:
            path = self._incoming / newest.file
            try:
                content = read_bounded(path, TEXT_LIMIT)
            except FileNotFoundError:
                break
            except DamagedError:
                content = b""
            if hashlib.sha256(content).hexdigest() != newest.sha256:
                self._require_in_place(newest, path)
                break
            found.append(path)
            try:
                newest = ManifestSummary.model_validate_json(content).parent
            except ValidationError as error:
                raise misread(path, "a manifest", error) from None
        return found

    def _require_in_place(self, record: FileRecord, other: Path) -> None:
        """Check that a manifest of the chain lies in the folder itself; another of its name is of a killed writer."""
        try:
            self.content(record, TEXT_LIMIT)
        except DamagedError:
            way = ", or remove its session with 'm2sd sessions undo --force'" if session_number(record) >= 0 else ""
            raise DamagedError(f"{other}: damaged, or cannot be read; restore it from a backup{way}") from None

    def _sweep(self) -> None:
        """Remove the remains of killed writers; the caller has the lock."""
        _remove_own(self._incoming)
        for folder in (self.path, self.training):
            if folder.is_dir():
                for entry in os.scandir(folder):
                    if OWN.fullmatch(unfinished(entry.name) or ""):
                        os.unlink(entry.path)

    def _remove_after(self, number: int) -> None:
        """Remove the files of the sessions after `number`, the last one first, so that those left have no gap."""
        last = number
        while any((self.path / f"{session_name(last + 1)}{end}").exists() for end in (".json", ".safetensors")):
            last += 1
        for each in range(last, number, -1):
            for end in (".json", ".safetensors"):
                (self.path / f"{session_name(each)}{end}").unlink(missing_ok=True)

    def remove_sessions(self, first: int, damaged: bool = False) -> None:
        """Remove sessions `first` and later.

        Args:
            first: a session number.
            damaged: remove them even if they are damaged, and trust the session before them as it is found.

        Raises:
            RunError: they could not be removed.
            DamagedError: one of them is damaged, so that the hash of the session before it is unknown.
        """
        newest, last = self._ends()
        if last < first:
            return
        record = newest
        try:
            for number in range(last, first - 1, -1):
                parent = self.read(session_name(number), record.sha256).manifest.parent
                assert parent is not None, "only stage 1 has no parent"
                record = parent
        except DamagedError as error:
            if not damaged:
                raise DamagedError(f"{error}, or remove it all the same with --force") from None
            record = self._unchecked(session_name(first - 1) if first else PRETRAIN, newest)
        self._point(record)
        with os_errors_as(RunError, f"{self.path}: a session could not be removed"):
            self._remove_after(first - 1)
            sync_folder(self.path)

    def _unchecked(self, name: str, newest: FileRecord) -> FileRecord:
        """Make the record of a manifest as it is found: in `incoming` if it is there alone, as the newest one is.

        Raises:
            DamagedError: it is missing or makes no sense, or there are two, one of which is of a killed writer.
        """
        coming, there = self._incoming / f"{name}.json", self.path / f"{name}.json"
        if not (coming.is_file() and (self._incoming / newest.file).is_file()):
            return self.read(name).record
        if there.is_file():
            raise DamagedError(
                f"{there}: another one of that name is in {self._incoming}, and one of them is of a killed command; "
                f"move the wrong one away"
            )
        return self.read(name, hashlib.sha256(read_bounded(coming, TEXT_LIMIT)).hexdigest()).record

    def repair(self) -> StoredManifest:
        """Make `head.json` anew of the longest sound chain, whose newest manifest is trusted as it is found.

        Returns:
            The newest manifest.

        Raises:
            RunError: `head.json` is sound, or there is no sound chain.
        """
        with suppress(DamagedError):
            if self.newest() is not None:
                raise RunError(f"{self.path}: its head is sound; 'm2sd sessions verify' tells what else may be wrong")
        for name in [*map(session_name, reversed(self._listed())), PRETRAIN]:
            with suppress(DamagedError):
                stored = self.read(name)
                self._require_sound(stored)
                self._point(stored.record)
                return stored
        raise RunError(f"{self.path}: no chain in it that a head could be made of; restore it from a backup")

    def _require_sound(self, stored: StoredManifest) -> None:
        """Check the checkpoint of a manifest, and every manifest and checkpoint before it, by their recorded hashes.

        Raises:
            DamagedError: one of them is damaged.
        """
        self.tensors(stored)
        while (parent := stored.manifest.parent) is not None:
            stored = self.read(parent.file.removesuffix(".json"), parent.sha256)
            self.tensors(stored)

    def remove_training(self) -> None:
        """Forget the training under way."""
        (self.training / STATE).unlink(missing_ok=True)
        _remove_own(self.training)

    def remove_tuning(self) -> None:
        """Forget the fine-tuning under way."""
        for name in OF_TUNING:
            inner = RunFolder(self.tuning / name)
            within = () if inner.path.is_symlink() else (inner.training, inner._incoming)
            for folder in (*within, inner.path):
                _remove_own(folder)
        _remove_own(self.tuning)  # with the file that tells of it: a killed command is followed by another attempt


def _remove_own(folder: Path) -> None:
    """Remove the files of a run from a folder, and then the folder unless a person has put others into it.

    Of a link to a folder the link alone is removed. A file that cannot be removed stays.
    """
    if not folder.is_dir():
        return
    if folder.is_symlink():
        with suppress(OSError):
            folder.unlink()
        return
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False) and OWN.fullmatch(unfinished(entry.name) or entry.name):
            with suppress(OSError):
                os.unlink(entry.path)
    with suppress(OSError):  # it is not empty
        os.rmdir(folder)


def open_run(run: Path | str | None = None) -> RunFolder:
    """Open the run folder at `run`, else $M2SD_RUN, else ./m2sd-run; it need not exist yet."""
    return RunFolder(expand(run, "--run") if run is not None else default_path())
