"""A run folder: reading its chain, and adding to its end.

What is written comes into `incoming` first, a checkpoint and its manifest; then `head.json` names the manifest as the
newest, and from that moment on it is part of the chain and whatever followed it is not. Only then are the two moved to
their place. A reader looks into `incoming` first and the next writer moves what a killed one has left there, so that at
every moment there is the old chain or the new one.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError
from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.files import (
    CHECKPOINT_LIMIT,
    TEXT_LIMIT,
    decode_tensors,
    encode_tensors,
    is_unfinished,
    read_bounded,
    read_verified,
    sync_folder,
    write_atomically,
)
from m2sd_cli.runs.lock import LOCK, WRITER, writing
from m2sd_cli.runs.manifest import FileRecord, Head, Manifest, Outline

RUN_VARIABLE = "M2SD_RUN"
HEAD: Final = "head.json"
HEAD_LIMIT = 4096  # bytes
SESSION = re.compile(r"session-(\d{3,6})\.json", re.ASCII)
PRETRAIN: Final = "pretrain"
STATE: Final = "state.json"  # of a training under way
TRIES = 5  # to read a chain that others keep changing

Part = TypeVar("Part", Manifest, Outline)
Result = TypeVar("Result")


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
        self._seen: bytes | None = None  # the head when the chain was read last

    @property
    def training(self) -> Path:
        """Where the state of a training under way lies."""
        return self.path / "training"

    @property
    def _incoming(self) -> Path:
        return self.path / "incoming"

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Be the only writer, after finishing or clearing what a killed one has left; see `writing`.

        Args:
            command: that writes.

        Raises:
            RunError: somebody else is writing, or the folder cannot be written to.
            DamagedError: the head is damaged.
        """
        with writing(self.path, command):
            try:
                for folder in (self._incoming, self.training):
                    if folder.is_symlink():
                        raise DamagedError(f"{folder}: a link; a run folder holds its folders themselves")
                self._settle()
                self._sweep()
            except OSError as error:
                raise RunError(f"{self.path}: cannot be written to ({error.strerror or error})") from None
            yield

    def owns(self, path: Path) -> bool:
        """Whether a file is one of the chain or of a training under way, which nothing else may write."""
        place = path.resolve()
        home = self.path.resolve()
        ours = place.name.startswith((f"{PRETRAIN}.", "session-", HEAD, LOCK, WRITER))
        inside = any(place.is_relative_to(home / folder.name) for folder in (self.training, self._incoming))
        return (place.parent == home and ours) or inside

    def head(self) -> FileRecord | None:
        """The newest manifest; None if there is none, or if the chain is of schema version 1, which has no head.

        Raises:
            DamagedError: the file that names it is damaged.
        """
        self._seen = self._head_bytes()
        if self._seen is None:
            return None
        path = self.path / HEAD
        record = Head.decoded(path, self._seen).manifest
        if record.file != f"{PRETRAIN}.json" and not SESSION.fullmatch(record.file):
            raise DamagedError(f"{path}: it names no manifest of a chain; restore it from a backup")
        return record

    def _head_bytes(self) -> bytes | None:
        try:
            return read_bounded(self.path / HEAD, HEAD_LIMIT)
        except FileNotFoundError:
            return None

    def newest(self) -> FileRecord | None:
        """The newest manifest of whatever schema version; None if there is none.

        Raises:
            RunError: the folder cannot be read.
            DamagedError: the head is damaged, or there is none and the manifest is.
        """
        head = self.head()
        if head is not None or not self.has_pretrain():
            return head
        listed = self._listed()
        return self.read(session_name(listed[-1]) if listed else PRETRAIN).record

    def sessions(self) -> list[int]:
        """The numbers of the sessions, ascending, without reading any.

        Raises:
            RunError: the folder cannot be read, or its head is damaged.
        """
        head = self.head()
        return self._listed() if head is None else list(range(_number(head) + 1))

    def _listed(self) -> list[int]:
        """The numbers of the sessions' manifests that lie in the folder, whether or not they are of the chain."""
        try:
            found = map(SESSION.fullmatch, os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        return sorted(int(each[1]) for each in found if each)

    def has_pretrain(self) -> bool:
        """Whether stage 1 was finished.

        Raises:
            DamagedError: the head is damaged.
        """
        return self.head() is not None or (self.path / f"{PRETRAIN}.json").is_file()

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
        content = self._content(path.name, sha256, TEXT_LIMIT)
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

    def _content(self, file: str, sha256: str | None, limit: int) -> bytes:
        """A file of the chain, wherever it is; files move from `incoming` to their place, never back.

        Raises:
            DamagedError: it is missing, cannot be read, or does not hash to `sha256`.
        """
        if sha256 is not None:
            try:
                content = read_bounded(self._incoming / file, limit)
            except (FileNotFoundError, DamagedError):
                content = b""
            if content and hashlib.sha256(content).hexdigest() == sha256:
                return content
        return read_verified(self.path / file, sha256, limit)

    def _steadily(self, read: Callable[[], Result]) -> Result:
        """Read again if it fails since others have changed the chain meanwhile."""
        for _ in range(TRIES):
            try:
                return read()
            except DamagedError:
                if self._head_bytes() == self._seen:
                    raise
        raise RunError(f"{self.path}: other m2sd commands keep changing it; try again")

    def pretrain(self) -> Link:
        """The manifest of stage 1.

        Raises:
            RunError: there is none.
            DamagedError: it is missing or changed, or a session is, so that nobody knows what it should be.
        """
        return self._steadily(self._pretrain)

    def _pretrain(self) -> Link:
        if not self.has_pretrain():
            raise RunError(f"{self.path}: no finished pretrain in it; run 'm2sd pretrain' first")
        head, numbers = self.head(), self.sessions()
        if numbers:
            links, _ = self._walk(numbers[-1], head, [0])
            parent = links[0].manifest.parent
            assert parent is not None
            return self.read(PRETRAIN, parent.sha256)
        link = self.read(PRETRAIN, None if head is None else head.sha256)
        self._refuse_headless(link.manifest, head)
        return link

    def chain(self, last: int | None = None) -> list[Link]:
        """The manifests of sessions 0..last, each checked against the hash that its child has of it.

        Args:
            last: a session number; None for the newest.

        Raises:
            RunError: the run has no session, or not that one.
            DamagedError: a manifest is missing, changed, or of another chain.
        """

        def read() -> list[Link]:
            newest, head = self._newest(last)
            links, _ = self._walk(newest, head, range(1 + (newest if last is None else last)))
            return list(links.values())

        return self._steadily(read)

    def session(self, number: int) -> Link:
        """The manifest of one session, of a chain that was checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """

        def read() -> Link:
            links, _ = self._walk(*self._newest(number), [number])
            return links[number]

        return self._steadily(read)

    def outline(self, last: int | None = None) -> ChainOutline:
        """The chain of sessions 0..last in outline, checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """

        def read() -> ChainOutline:
            newest, head = self._newest(last)
            end = newest if last is None else last
            links, parts = self._walk(newest, head, [0, end])
            return ChainOutline(links[0], links[end], parts[: end + 1])

        return self._steadily(read)

    def _newest(self, wanted: int | None = None) -> tuple[int, FileRecord | None]:
        """The number of the newest session, and the head that says so, if the chain has one."""
        head = self.head()
        present = self._listed() if head is None else range(_number(head) + 1)
        if not present:
            what = "no session in it yet; run 'm2sd distill' first" if self.has_pretrain() else "no trained model in it"
            raise RunError(f"{self.path}: {what}" if self.path.is_dir() else f"{self.path}: no such run folder")
        if wanted is not None and not 0 <= wanted <= present[-1]:
            raise RunError(f"{self.path}: no session {wanted} in it; the newest is session {present[-1]}")
        return present[-1], head

    def _walk(
        self, newest: int, head: FileRecord | None, whole: Container[int]
    ) -> tuple[dict[int, Link], list[Manifest | Outline]]:
        """From the newest session to the first, reading some manifests as a whole and of the others the outline.

        Returns:
            the manifests of the sessions in `whole`, and what was read of each session; both in the chain's order.
        """
        links: dict[int, Link] = {}
        parts: list[Manifest | Outline] = []
        sha256 = None if head is None else head.sha256
        for number in range(newest, -1, -1):
            name = session_name(number)
            part: Manifest | Outline
            # Of a chain without a head nobody vouches for the newest.
            if number in whole or sha256 is None:
                link = self.read(name, sha256)
                part = link.manifest
                if number in whole:
                    links[number] = link
            else:
                part, _ = self._read(name, sha256, Outline)
            self._refuse_headless(part, head)
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

    def _refuse_headless(self, part: Manifest | Outline, head: FileRecord | None) -> None:
        if head is None and part.schema_version > 1:
            raise DamagedError(f"{self.path / HEAD}: missing; restore it from a backup")

    def tensors(self, link: Link | Manifest | Outline) -> dict[str, Tensor]:
        """The checkpoint of a manifest.

        Raises:
            DamagedError: it is missing, changed, or no safetensors file.
            RunError: the chain that the manifest was read of is no more.
        """
        record = (link.manifest if isinstance(link, Link) else link).checkpoint
        try:
            return decode_tensors(self.path / record.file, self._content(record.file, record.sha256, CHECKPOINT_LIMIT))
        except DamagedError:
            if self._head_bytes() == self._seen:
                raise
            raise RunError(f"{self.path}: it was changed while it was read; try again") from None

    def write_checkpoint(self, name: str, tensors: dict[str, Tensor]) -> FileRecord:
        """Write the checkpoint of a stage or session; until its manifest follows, nothing refers to it."""
        return self._write(f"{name}.safetensors", encode_tensors(tensors))

    def write_manifest(self, name: str, manifest: Manifest) -> Link:
        """Write the manifest, after its checkpoint; from now on it is the newest, and whatever followed it is gone.

        Raises:
            RunError: it could not be written, and the chain is what it was; or it was, and could not be moved to its
                place, which the next command does.
        """
        record = self._write(f"{name}.json", manifest.model_dump_json(indent=1).encode() + b"\n")
        self._point(record)
        try:
            self._settle()
        except OSError as error:
            raise RunError(
                f"{self.path}: {name} is part of it now, but not yet in its place ({error.strerror or error}); the "
                f"next command moves it there"
            ) from None
        return Link(manifest, record)

    def _write(self, file: str, content: bytes) -> FileRecord:
        try:
            self._incoming.mkdir(exist_ok=True)
            sync_folder(self.path)
        except OSError as error:
            raise RunError(f"{self._incoming}: cannot be made ({error.strerror or error})") from None
        return FileRecord(file=file, sha256=write_atomically(self._incoming / file, content))

    def _point(self, record: FileRecord) -> None:
        write_atomically(self.path / HEAD, Head(manifest=record).encoded())

    def _settle(self) -> None:
        """Move the newest manifest and its checkpoint to their place, and remove what it has replaced."""
        head = self.head()
        if head is None:
            return
        coming = self._incoming / head.file
        try:
            content = read_bounded(coming, TEXT_LIMIT)
        except (FileNotFoundError, DamagedError):
            return
        if hashlib.sha256(content).hexdigest() != head.sha256:
            return
        checkpoint = coming.with_suffix(".safetensors")
        if checkpoint.exists():
            os.replace(checkpoint, self.path / checkpoint.name)
            sync_folder(self.path)
        number = _number(head)
        self._remove_after(number)
        if number <= 0:
            self.remove_training()  # what it was a training for is there now
        os.replace(coming, self.path / head.file)
        sync_folder(self.path)
        shutil.rmtree(self._incoming, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed writers have left; the caller has the lock."""
        if self._incoming.exists():
            shutil.rmtree(self._incoming)
        for folder, beginnings in ((self.path, (f"{HEAD}.",)), (self.training, (f"{STATE}.", "step-"))):
            if folder.is_dir():
                for entry in os.scandir(folder):
                    if is_unfinished(entry.name, beginnings):
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
            damaged: remove them even if they are damaged. The session before them is then taken as it is found.

        Raises:
            RunError: they could not be removed.
            DamagedError: one of them is damaged, so that nobody knows what the session before it should be.
        """
        newest, head = self._newest()
        if newest < first:
            return
        before = head
        try:
            for number in range(newest, first - 1, -1):
                link = self.read(session_name(number), None if before is None else before.sha256)
                self._refuse_headless(link.manifest, head)
                before = link.manifest.parent
        except DamagedError:
            if not damaged:
                raise
            before = self.read(session_name(first - 1) if first else PRETRAIN).record
        assert before is not None  # only stage 1 has no parent
        self._point(before)
        try:
            self._remove_after(first - 1)
            sync_folder(self.path)
        except OSError as error:
            raise RunError(f"{self.path}: a session could not be removed ({error.strerror or error})") from None

    def remove_training(self) -> None:
        """Forget the training under way."""
        (self.training / STATE).unlink(missing_ok=True)
        shutil.rmtree(self.training, ignore_errors=True)

    def verify(self) -> list[str]:
        """Re-hash every file of the run.

        Returns:
            One sentence for each file that is missing or damaged; empty if all is well.

        Raises:
            RunError: there is no run here.
        """
        problems: list[str] = []
        head = None
        try:
            head = self.head()
            numbers = self.sessions()
        except DamagedError as error:
            problems.append(str(error))
            numbers = self._listed()
        if not numbers and not (problems or self.has_pretrain()):
            raise RunError(f"{self.path}: no run in it" if self.path.is_dir() else f"{self.path}: no such run folder")
        headless = head is None and not problems
        names = [session_name(number) for number in range(max(numbers, default=-1), -1, -1)]
        expected = None if head is None else head.sha256
        for name in [*names, PRETRAIN]:
            try:
                link = self.read(name, expected)
                if headless:
                    headless = False
                    self._refuse_headless(link.manifest, head)
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
        if numbers and not problems:
            try:
                self.outline()  # whole files may still not fit each other
            except DamagedError as error:
                problems.append(str(error))
        return problems[::-1]


def _number(head: FileRecord) -> int:
    """Of the newest session; -1 if stage 1 is all there is."""
    match = SESSION.fullmatch(head.file)
    return int(match[1]) if match else -1
