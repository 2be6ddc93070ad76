"""Reading the chain of a run folder, every file checked against the hash that another one has of it.

`head.json` names the newest manifest, each manifest its parent and its checkpoint. A file that was written a moment ago
may still lie in `incoming`; see `RunFolder`.
"""

import hashlib
import os
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError
from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.files import CHECKPOINT_LIMIT, TEXT_LIMIT, decode_tensors, read_bounded, read_verified
from m2sd_cli.runs.manifest import FileRecord, Head, Manifest, Outline
from m2sd_cli.runs.sealed import explained

HEAD: Final = "head.json"
HEAD_LIMIT = 4096  # bytes
SESSION = re.compile(r"session-(\d{3,6})\.json", re.ASCII)
PRETRAIN: Final = "pretrain"
REPAIR = ", or have it made of what is there by 'm2sd sessions repair'"
TRIES = 5  # to read a chain that others keep changing

Part = TypeVar("Part", Manifest, Outline)
Result = TypeVar("Result")


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


class ChainReader:
    """One run on disk, to be read.

    Args:
        path: the folder; it need not exist.
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

    def head(self) -> FileRecord | None:
        """The newest manifest; None if there is none, or if the chain is of schema version 1, which has no head.

        Raises:
            DamagedError: the file that names it is damaged.
        """
        self._seen = self._head_bytes()
        if self._seen is None:
            return None
        path = self.path / HEAD
        try:
            record = Head.decoded(path, self._seen).manifest
        except DamagedError as error:
            raise DamagedError(f"{error}{REPAIR}") from None
        if record.file != f"{PRETRAIN}.json" and not SESSION.fullmatch(record.file):
            raise DamagedError(f"{path}: it names no manifest of a chain; restore it from a backup{REPAIR}")
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
        if head is not None or not self._has_pretrain(head):
            return head
        listed = self._listed()
        return self.read(session_name(listed[-1]) if listed else PRETRAIN).record

    def sessions(self) -> list[int]:
        """The numbers of the sessions, ascending, without reading any.

        Raises:
            RunError: the folder cannot be read, or its head is damaged.
        """
        return self._numbers(self.head())

    def _numbers(self, head: FileRecord | None) -> list[int]:
        """The numbers of the sessions of a chain with such a head."""
        return self._listed() if head is None else list(range(session_number(head) + 1))

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
        return self._has_pretrain(self.head())

    def _has_pretrain(self, head: FileRecord | None) -> bool:
        return head is not None or (self.path / f"{PRETRAIN}.json").is_file()

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
            raise DamagedError(f"{path}: not a manifest that this version reads: {explained(error)}") from None
        expected = PRETRAIN if part.session is None else session_name(part.session)
        if expected != name:
            raise DamagedError(f"{path}: it is the manifest of {expected}; restore the right one from a backup")
        return part, FileRecord(file=path.name, sha256=sha256 or hashlib.sha256(content).hexdigest())

    def content(self, record: FileRecord, limit: int) -> bytes:
        """A file of the chain that has at most `limit` bytes.

        Raises:
            DamagedError: it is missing or changed.
        """
        return self._content(record.file, record.sha256, limit)

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
        head = self.head()  # once: others may replace it at any moment
        if not self._has_pretrain(head):
            raise RunError(f"{self.path}: no finished pretrain in it; run 'm2sd pretrain' first")
        numbers = self._numbers(head)
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
        present = self._numbers(head)
        if not present:
            trained = self._has_pretrain(head)
            what = "no session in it yet; run 'm2sd distill' first" if trained else "no trained model in it"
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
            raise DamagedError(f"{self.path / HEAD}: missing; restore it from a backup{REPAIR}")

    def tensors(self, link: Link | Manifest | Outline) -> dict[str, Tensor]:
        """The checkpoint of a manifest.

        Raises:
            DamagedError: it is missing, changed, or no safetensors file.
            RunError: the chain that the manifest was read of is no more.
        """
        try:
            return self._tensors((link.manifest if isinstance(link, Link) else link).checkpoint)
        except DamagedError:
            if self._head_bytes() == self._seen:
                raise
            raise RunError(f"{self.path}: it was changed while it was read; try again") from None

    def _tensors(self, record: FileRecord) -> dict[str, Tensor]:
        return decode_tensors(self.path / record.file, self.content(record, CHECKPOINT_LIMIT))

    def verify(self) -> list[str]:
        """Re-hash every file of the run.

        Returns:
            One sentence for each file that is missing or damaged; empty if all is well.

        Raises:
            RunError: there is no run here.
        """
        try:
            self._steadily(self._verify)
        except DamagedError as error:
            return error.lines
        return []

    def _verify(self) -> None:
        """Raises a DamagedError with a line for each file that is missing or damaged."""
        problems: list[str] = []
        head = None
        try:
            head = self.head()
            numbers = self._numbers(head)
        except DamagedError as error:
            problems.append(str(error))
            numbers = self._listed()
        if not numbers and not (problems or self._has_pretrain(head)):
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
                self._tensors(link.manifest.checkpoint)
            except DamagedError as error:
                problems.append(str(error))
        if problems:
            raise DamagedError(*reversed(problems))
        if numbers:
            self._walk(numbers[-1], head, [])  # whole files may still not fit each other


def session_number(head: FileRecord) -> int:
    """Of the newest session; -1 if stage 1 is all there is."""
    match = SESSION.fullmatch(head.file)
    return int(match[1]) if match else -1
