"""A run folder: reading its chain, and adding to its end."""

import hashlib
import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError
from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.files import decode_tensors, encode_tensors, read_verified, sync_folder, write_atomically
from m2sd_cli.runs.manifest import FileRecord, Manifest, Outline

RUN_VARIABLE = "M2SD_RUN"
LOCK = ".lock"
SESSION = re.compile(r"session-(\d+)\.json", re.ASCII)
PRETRAIN: Final = "pretrain"

Part = TypeVar("Part", Manifest, Outline)


def default_path() -> Path:
    """$M2SD_RUN, else ./m2sd-run."""
    return Path(os.environ.get(RUN_VARIABLE) or "m2sd-run")


def session_name(session: int) -> str:
    """The stem of a session's two files."""
    return f"session-{session:03d}"


@dataclass(frozen=True)
class Link:
    """A manifest of the chain as it was read, and the hash that its child refers to."""

    manifest: Manifest
    record: FileRecord

    @property
    def name(self) -> str:
        """The stem of the two files."""
        return self.record.file.removesuffix(".json")


@dataclass(frozen=True)
class ChainOutline:
    """A chain with its ends in full: all that using it and adding to it need, in a third of the time of the whole."""

    base: Link
    last: Link  # session 0 may be both
    sessions: list[Manifest | Outline]

    def taught(self) -> dict[str, int]:
        """The session of every class, by its name."""
        return {each.name: number for number, part in enumerate(self.sessions) for each in part.classes}


class RunFolder:
    """One run on disk. Reading verifies; writing needs `locked`.

    Args:
        path: the folder; it need not exist before something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def training(self) -> Path:
        """Where the state of a training under way lies."""
        return self.path / "training"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer; makes the folder if need be, and takes it away again if nothing was written into it.

        The lock of a process that died is no lock.

        Raises:
            RunError: somebody else is writing, or the folder cannot be made.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.path}: another m2sd command is writing to it; wait until that has ended") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written to ({error.strerror or error})") from None
        try:
            yield
        finally:
            lock.release()
            if [path.name for path in self.path.iterdir()] == [LOCK]:
                (self.path / LOCK).unlink()
                for path in made:
                    path.rmdir()

    def owns(self, path: Path) -> bool:
        """Whether a file is one of the chain or of a training under way, which nothing else may write."""
        place = path.resolve()
        home = self.path.resolve()
        ours = place.name.startswith((f"{PRETRAIN}.", "session-", LOCK))
        return (place.parent == home and ours) or place.is_relative_to(home / "training")

    def sessions(self) -> list[int]:
        """The numbers of the sessions that have a manifest, ascending, without reading any.

        Raises:
            RunError: the folder cannot be read.
        """
        if not self.path.is_dir():
            return []
        try:
            found = map(SESSION.fullmatch, os.listdir(self.path))
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        return sorted(int(each[1]) for each in found if each)

    def has_pretrain(self) -> bool:
        """Whether stage 1 was finished."""
        return (self.path / f"{PRETRAIN}.json").is_file()

    def read(self, name: str, sha256: str | None = None) -> Link:
        """Read one manifest.

        Args:
            name: `pretrain` or `session-NNN`.
            sha256: what its file must hash to, where that is known.

        Raises:
            DamagedError: it is missing, changed, or not a manifest of a known schema version.
        """
        manifest, record = self._read(name, sha256, Manifest)
        return Link(manifest, record)

    def _read(self, name: str, sha256: str | None, model: type[Part]) -> tuple[Part, FileRecord]:
        path = self.path / f"{name}.json"
        content = read_verified(path, sha256)
        try:
            part = model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise DamagedError(f"{path}: not a manifest that this version reads: {where}: {first['msg']}") from None
        expected = PRETRAIN if part.session is None else session_name(part.session)
        if expected != name:
            raise DamagedError(f"{path}: it is the manifest of {expected}; restore the right one from a backup")
        return part, FileRecord(file=path.name, sha256=sha256 or hashlib.sha256(content).hexdigest())

    def pretrain(self) -> Link:
        """The manifest of stage 1.

        Raises:
            RunError: there is none.
        """
        if not self.has_pretrain():
            raise RunError(f"{self.path}: no finished pretrain in it; run 'm2sd pretrain' first")
        return self.read(PRETRAIN)

    def chain(self, last: int | None = None) -> list[Link]:
        """The manifests of sessions 0..last, each checked against the hash that its child has of it.

        Args:
            last: a session number; None for the newest.

        Raises:
            RunError: the run has no session, or not that one.
            DamagedError: a manifest is missing, changed, or of another chain.
        """
        newest = self._newest(last)
        links, _ = self._walk(newest, range(1 + (newest if last is None else last)))
        return list(links.values())

    def session(self, number: int) -> Link:
        """The manifest of one session, of a chain that was checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """
        links, _ = self._walk(self._newest(number), [number])
        return links[number]

    def outline(self, last: int | None = None) -> ChainOutline:
        """The chain of sessions 0..last in outline, checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """
        newest = self._newest(last)
        last = newest if last is None else last
        links, parts = self._walk(newest, [0, last])
        return ChainOutline(links[0], links[last], parts[: last + 1])

    def _newest(self, wanted: int | None = None) -> int:
        present = self.sessions()
        if not present:
            what = "no session in it yet; run 'm2sd distill' first" if self.has_pretrain() else "no trained model in it"
            raise RunError(f"{self.path}: {what}" if self.path.is_dir() else f"{self.path}: no such run folder")
        if wanted is not None and not 0 <= wanted <= present[-1]:
            raise RunError(f"{self.path}: no session {wanted} in it; the newest is session {present[-1]}")
        return present[-1]

    def _walk(self, newest: int, whole: Container[int]) -> tuple[dict[int, Link], list[Manifest | Outline]]:
        """From the newest session to the first, reading some manifests as a whole and of the others the outline.

        Returns:
            the manifests of the sessions in `whole`, and what was read of each session; both in the chain's order.
        """
        links: dict[int, Link] = {}
        parts: list[Manifest | Outline] = []
        sha256: str | None = None
        for number in range(newest, -1, -1):
            name = session_name(number)
            part: Manifest | Outline
            # Nobody vouches for the newest.
            if number in whole or number == newest:
                link = self.read(name, sha256)
                part = link.manifest
                if number in whole:
                    links[number] = link
            else:
                part, _ = self._read(name, sha256, Outline)
            expected = f"{session_name(number - 1) if number else PRETRAIN}.json"
            if part.parent is None or part.parent.file != expected:
                raise DamagedError(f"{self.path / name}.json: its parent is not {expected}")
            sha256 = part.parent.sha256
            parts.append(part)
        parts.reverse()
        before = 0
        for number, part in enumerate(parts):
            if part.classes_before != before:
                raise DamagedError(
                    f"{self.path / session_name(number)}.json: its class indices do not follow the chain's"
                )
            before = part.classes_so_far
        return dict(reversed(links.items())), parts

    def tensors(self, link: Link | Manifest | Outline) -> dict[str, Tensor]:
        """The checkpoint of a manifest.

        Raises:
            DamagedError: it is missing, changed, or no safetensors file.
        """
        record = (link.manifest if isinstance(link, Link) else link).checkpoint
        path = self.path / record.file
        return decode_tensors(path, read_verified(path, record.sha256))

    def write_checkpoint(self, name: str, tensors: dict[str, Tensor]) -> FileRecord:
        """Write the checkpoint of a stage or session; until its manifest follows, nothing refers to it."""
        path = self.path / f"{name}.safetensors"
        return FileRecord(file=path.name, sha256=write_atomically(path, encode_tensors(tensors)))

    def write_manifest(self, name: str, manifest: Manifest) -> Link:
        """Write the manifest, after its checkpoint; from now on the stage or session exists."""
        path = self.path / f"{name}.json"
        content = manifest.model_dump_json(indent=1).encode() + b"\n"
        return Link(manifest, FileRecord(file=path.name, sha256=write_atomically(path, content)))

    def remove_sessions(self, first: int) -> None:
        """Remove sessions `first` and later, the newest first, so that what is left is a chain at every moment."""
        try:
            for number in reversed([number for number in self.sessions() if number >= first]):
                (self.path / f"{session_name(number)}.json").unlink()
                sync_folder(self.path)
                (self.path / f"{session_name(number)}.safetensors").unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.path}: a session could not be removed ({error.strerror or error})") from None

    def remove_pretrain(self) -> None:
        """Remove stage 1; its sessions have to be gone already."""
        (self.path / f"{PRETRAIN}.json").unlink(missing_ok=True)

    def verify(self) -> list[str]:
        """Re-hash every file of the run.

        Returns:
            One sentence for each file that is missing or damaged; empty if all is well.

        Raises:
            RunError: there is no run here.
        """
        numbers = self.sessions()
        if not numbers and not self.has_pretrain():
            raise RunError(f"{self.path}: no run in it" if self.path.is_dir() else f"{self.path}: no such run folder")
        problems: list[str] = []
        names = [session_name(number) for number in range(max(numbers, default=-1), -1, -1)]
        expected: str | None = None
        for name in [*names, PRETRAIN]:
            try:
                link = self.read(name, expected)
            except DamagedError as error:
                problems.append(str(error))
                expected = None
                continue
            parent = link.manifest.parent
            expected = parent.sha256 if parent else None
            try:
                self.tensors(link)
            except DamagedError as error:
                problems.append(str(error))
        return problems[::-1]
