"""Reading the files of a run folder one by one, each checked against its hash in another file.

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
from m2sd_cli.reading import counted
from m2sd_cli.registry import way_to
from m2sd_cli.runs.checksummed import misread
from m2sd_cli.runs.files import CHECKPOINT_LIMIT, TEXT_LIMIT, decode_tensors, read_bounded, read_verified
from m2sd_cli.runs.manifest import FileRecord, Manifest, ManifestSummary, NewestPointer

POINTER: Final = "head.json"
POINTER_LIMIT = 4096  # bytes
SESSION = re.compile(r"session-(\d{3,6})\.json", re.ASCII)
PRETRAIN: Final = "pretrain"
REPAIR = ", or have it made of what is there by 'm2sd sessions repair'"

Model = TypeVar("Model", Manifest, ManifestSummary)


def session_name(session: int) -> str:
    """Return the stem of a session's two files."""
    return f"session-{session:03d}"


def session_number(newest: FileRecord | None) -> int:
    """Return the number of the newest session; -1 if there is none, with or without a stage 1."""
    match = SESSION.fullmatch(newest.file) if newest else None
    return int(match[1]) if match else -1


@dataclass(frozen=True)
class StoredManifest:
    """A manifest of the chain as it was read, and the hash that its child refers to."""

    manifest: Manifest
    record: FileRecord

    def __repr__(self) -> str:
        return f"<{self.manifest.kind} of {counted(len(self.manifest.classes), 'class')}: {self.record.file}>"

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
        self._last_pointer: bytes | None = None  # the content of head.json when the chain was read last

    @property
    def training(self) -> Path:
        """The folder of the state of a training under way."""
        return self.path / "training"

    @property
    def tuning(self) -> Path:
        """The folder of a fine-tuning under way, with trainings of its own."""
        return self.path / "tuning"

    @property
    def _incoming(self) -> Path:
        return self.path / "incoming"

    def newest(self) -> FileRecord | None:
        """Read the record of the newest manifest; None if there is none.

        Raises:
            RunError: the folder cannot be read.
            DamagedError: `head.json` is damaged, or missing although there are manifests.
        """
        self._last_pointer = self._pointer_bytes()
        path = self.path / POINTER
        if self._last_pointer is None:
            if self._listed() or (self.path / f"{PRETRAIN}.json").is_file():
                raise DamagedError(f"{path}: missing; restore it from a backup{REPAIR}")
            return None
        try:
            record = NewestPointer.decoded(path, self._last_pointer).manifest
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

    def sessions(self) -> list[int]:
        """List the numbers of the sessions, ascending, without reading any.

        Raises:
            RunError, DamagedError: as `newest` does.
        """
        return list(range(session_number(self.newest()) + 1))

    def _listed(self) -> list[int]:
        """List the numbers of the sessions' manifests that lie in the folder, whether or not they are of the chain."""
        try:
            matches = map(SESSION.fullmatch, os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        return sorted(int(match[1]) for match in matches if match)

    def has_pretrain(self) -> bool:
        """Tell whether stage 1 was finished.

        Raises:
            RunError, DamagedError: as `newest` does.
        """
        return self.newest() is not None

    def read(self, name: str, sha256: str | None = None) -> StoredManifest:
        """Read one manifest.

        Args:
            name: `pretrain` or `session-NNN`.
            sha256: the hash of its file; None if it is unknown.

        Raises:
            DamagedError: it is missing, changed, or not a manifest of this schema version.
        """
        manifest, record = self._read(name, sha256, Manifest)
        return StoredManifest(manifest, record)

    def _read(self, name: str, sha256: str | None, model: type[Model]) -> tuple[Model, FileRecord]:
        path = self.path / f"{name}.json"
        content = self._content(path.name, sha256, TEXT_LIMIT)
        try:
            manifest = model.model_validate_json(content)
        except ValidationError as error:
            raise misread(path, "a manifest", error) from None
        expected = PRETRAIN if manifest.session is None else session_name(manifest.session)
        if expected != name:
            raise DamagedError(f"{path}: it is the manifest of {expected}; restore the right one from a backup")
        return manifest, FileRecord(file=path.name, sha256=sha256 or hashlib.sha256(content).hexdigest())

    def unknown(self, stored: StoredManifest, kind: str, name: str) -> DamagedError:
        """Make the error of a manifest with a backbone, classifier or data set that this version does not know."""
        hint = way_to(stored.manifest.plugins.get(name))
        return DamagedError(f"{self.path / stored.record.file}: this version knows no {kind} {name!r}{hint}")

    def content(self, record: FileRecord, limit: int) -> bytes:
        """Read a file of the chain that has at most `limit` bytes.

        Raises:
            DamagedError: it is missing or changed.
        """
        return self._content(record.file, record.sha256, limit)

    def _content(self, file: str, sha256: str | None, limit: int) -> bytes:
        """Read a file of the chain from either folder; files move out of `incoming`, never back.

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

    def tensors(self, stored: StoredManifest | Manifest | ManifestSummary) -> dict[str, Tensor]:
        """Read the checkpoint of a manifest.

        Raises:
            DamagedError: it is missing, changed, or no safetensors file.
            RunError: the chain has been changed since the manifest was read.
        """
        try:
            return self._tensors((stored.manifest if isinstance(stored, StoredManifest) else stored).checkpoint)
        except DamagedError:
            if self._pointer_bytes() == self._last_pointer:
                raise
            raise RunError(f"{self.path}: it was changed while it was read; try again") from None

    def _tensors(self, record: FileRecord) -> dict[str, Tensor]:
        return decode_tensors(self.path / record.file, self.content(record, CHECKPOINT_LIMIT))
