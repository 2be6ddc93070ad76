"""Reading the files of a run folder one by one, each checked against the hash that another one has of it.

`head.json` names the newest manifest, each manifest its parent and its checkpoint. A file that was written a moment ago
may still lie in `incoming`; see `RunFolder`.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError
from torch import Tensor

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.checksummed import describe_error
from m2sd_cli.runs.files import CHECKPOINT_LIMIT, TEXT_LIMIT, decode_tensors, read_bounded, read_verified
from m2sd_cli.runs.manifest import FileRecord, Manifest, ManifestSummary, NewestPointer

POINTER: Final = "head.json"
POINTER_LIMIT = 4096  # bytes
SESSION = re.compile(r"session-(\d{3,6})\.json", re.ASCII)
PRETRAIN: Final = "pretrain"
REPAIR = ", or have it made of what is there by 'm2sd sessions repair'"

Part = TypeVar("Part", Manifest, ManifestSummary)


def session_name(session: int) -> str:
    """The stem of a session's two files."""
    return f"session-{session:03d}"


def session_number(pointer: FileRecord) -> int:
    """Of the newest session; -1 if stage 1 is all there is."""
    match = SESSION.fullmatch(pointer.file)
    return int(match[1]) if match else -1


@dataclass(frozen=True)
class StoredManifest:
    """A manifest of the chain as it was read, and the hash that its child refers to."""

    manifest: Manifest
    record: FileRecord

    @property
    def name(self) -> str:
        """The stem of the two files."""
        return self.record.file.removesuffix(".json")


class FileReader:
    """The files of one run on disk.

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

    def pointer(self) -> FileRecord | None:
        """The newest manifest; None if there is none, or if the chain is of schema version 1, which has no head.

        Raises:
            DamagedError: the file that names it is damaged.
        """
        self._seen = self._pointer_bytes()
        if self._seen is None:
            return None
        path = self.path / POINTER
        try:
            record = NewestPointer.decoded(path, self._seen).manifest
        except DamagedError as error:
            raise DamagedError(f"{error}{REPAIR}") from None
        if record.file != f"{PRETRAIN}.json" and not SESSION.fullmatch(record.file):
            raise DamagedError(f"{path}: it names no manifest of a chain; restore it from a backup{REPAIR}")
        return record

    def _pointer_bytes(self) -> bytes | None:
        try:
            return read_bounded(self.path / POINTER, POINTER_LIMIT)
        except FileNotFoundError:
            return None

    def newest(self) -> FileRecord | None:
        """The newest manifest of whatever schema version; None if there is none.

        Raises:
            RunError: the folder cannot be read.
            DamagedError: the pointer is damaged, or there is none and the manifest is.
        """
        pointer = self.pointer()
        if pointer is not None or not self._has_pretrain(pointer):
            return pointer
        listed = self._listed()
        return self.read(session_name(listed[-1]) if listed else PRETRAIN).record

    def sessions(self) -> list[int]:
        """The numbers of the sessions, ascending, without reading any.

        Raises:
            RunError: the folder cannot be read, or its pointer is damaged.
        """
        return self._numbers(self.pointer())

    def _numbers(self, pointer: FileRecord | None) -> list[int]:
        """The numbers of the sessions of a chain with such a head."""
        return self._listed() if pointer is None else list(range(session_number(pointer) + 1))

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
            DamagedError: the pointer is damaged.
        """
        return self._has_pretrain(self.pointer())

    def _has_pretrain(self, pointer: FileRecord | None) -> bool:
        return pointer is not None or (self.path / f"{PRETRAIN}.json").is_file()

    def read(self, name: str, sha256: str | None = None) -> StoredManifest:
        """Read one manifest.

        Args:
            name: `pretrain` or `session-NNN`.
            sha256: what its file must hash to, where that is known.

        Raises:
            DamagedError: it is missing, changed, or not a manifest of a known schema version.
        """
        manifest, record = self._read(name, sha256, Manifest)
        return StoredManifest(manifest, record)

    def _read(self, name: str, sha256: str | None, model: type[Part]) -> tuple[Part, FileRecord]:
        path = self.path / f"{name}.json"
        content = self._content(path.name, sha256, TEXT_LIMIT)
        try:
            part = model.model_validate_json(content)
        except ValidationError as error:
            raise DamagedError(f"{path}: not a manifest that this version reads: {describe_error(error)}") from None
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

    def _refuse_pointerless(self, part: Manifest | ManifestSummary, pointer: FileRecord | None) -> None:
        if pointer is None and part.schema_version > 1:
            raise DamagedError(f"{self.path / POINTER}: missing; restore it from a backup{REPAIR}")

    def tensors(self, stored: StoredManifest | Manifest | ManifestSummary) -> dict[str, Tensor]:
        """The checkpoint of a manifest.

        Raises:
            DamagedError: it is missing, changed, or no safetensors file.
            RunError: the chain that the manifest was read of is no more.
        """
        try:
            return self._tensors((stored.manifest if isinstance(stored, StoredManifest) else stored).checkpoint)
        except DamagedError:
            if self._pointer_bytes() == self._seen:
                raise
            raise RunError(f"{self.path}: it was changed while it was read; try again") from None

    def _tensors(self, record: FileRecord) -> dict[str, Tensor]:
        return decode_tensors(self.path / record.file, self.content(record, CHECKPOINT_LIMIT))
