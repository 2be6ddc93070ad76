"""Reading the chain of a run folder from its newest manifest to its first, while other processes may change it."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Concatenate, ParamSpec, TypeVar

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.reading import counted
from m2sd_cli.runs.classes import ChainClasses
from m2sd_cli.runs.manifest import FileRecord, Manifest, ManifestSummary
from m2sd_cli.runs.reader import PRETRAIN, FileReader, StoredManifest, session_name, session_number

TRIES = 5  # to read a chain that others keep changing
NO_FOLDER = "no such run folder; name one with --run, or make one with 'm2sd learn DIR' or 'm2sd pretrain'"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Read = Callable[Concatenate["ChainReader", Parameters], Result]


@dataclass(frozen=True)
class ChainSummary:
    """A chain with its first and last manifest in full, the others in part.

    It is enough to use the chain and to add to it, and faster to read than all manifests in full.
    """

    base: StoredManifest
    last: StoredManifest  # session 0 may be both
    sessions: list[Manifest | ManifestSummary]

    @cached_property
    def classes(self) -> ChainClasses:
        """The classes that were taught, as they are after the last session."""
        return ChainClasses.of(self.sessions)

    def taught(self) -> dict[str, int]:
        """Return the session of every class that was not forgotten, by the class's name."""
        return {each.name: each.session for each in self.classes.known}

    def describe_taught(self) -> str | None:
        """Count in words the classes and shots that the sessions after session 0 have taught; None without such."""
        taught = self.sessions[1:]
        if not taught:
            return None
        classes = sum(each.session > 0 for each in self.classes.all)
        shots = sum(each.shots for part in taught for each in part.classes)
        return f"{counted(len(taught), 'taught session')} of {counted(classes, 'class')} and {counted(shots, 'shot')}"

    def taught_images(self) -> dict[str, str]:
        """Return the class and session of every shot as text, by the shot's SHA-256.

        Base images are not listed, nor are those of forgotten classes.
        """
        return {
            sha256: f"{each.name!r}, session {number}"
            for each in self.classes.known
            for number, place in each.shots
            for sha256 in self.sessions[number].classes[place].shot_sha256
        }


def _steadily(read: Read[Parameters, Result]) -> Read[Parameters, Result]:
    """Decorate a method to read again if reading fails because others have changed the chain meanwhile."""

    @wraps(read)
    def steady(self: "ChainReader", /, *args: Parameters.args, **options: Parameters.kwargs) -> Result:
        for _ in range(TRIES):
            try:
                return read(self, *args, **options)
            except DamagedError:
                if self._pointer_bytes() == self._last_pointer:
                    raise
        raise RunError(f"{self.path}: other m2sd commands keep changing it; try again")

    return steady


class ChainReader(FileReader):
    """One run on disk, to be read."""

    @_steadily
    def pretrain(self) -> StoredManifest:
        """Read the manifest of stage 1.

        Raises:
            RunError: the run has no stage 1.
            DamagedError: a manifest is missing or changed: stage 1's, or one by which its hash is known.
        """
        newest = self.newest()  # once: others may replace it at any moment
        if newest is None:
            raise RunError(f"{self.path}: no finished pretrain in it; run 'm2sd pretrain' first")
        if session_number(newest) < 0:
            return self.read(PRETRAIN, newest.sha256)
        manifests, _ = self._walk(newest, [0])
        parent = manifests[0].manifest.parent
        assert parent is not None
        return self.read(PRETRAIN, parent.sha256)

    @_steadily
    def chain(self, last: int | None = None) -> list[StoredManifest]:
        """Read the manifests of sessions 0..last, each checked against the hash in its child.

        Args:
            last: a session number; None for the newest.

        Raises:
            RunError: the run has no session, or not that one.
            DamagedError: a manifest is missing, changed, or of another chain.
        """
        newest, end = self._ends(last)
        manifests, _ = self._walk(newest, range(1 + end))
        return list(manifests.values())

    @_steadily
    def session(self, number: int) -> StoredManifest:
        """Read the manifest of one session, of a chain that was checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """
        newest, _ = self._ends(number)
        manifests, _ = self._walk(newest, [number])
        return manifests[number]

    @_steadily
    def summary(self, last: int | None = None) -> ChainSummary:
        """Read the chain of sessions 0..last in part, checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """
        newest, end = self._ends(last)
        manifests, parts = self._walk(newest, [0, end])
        return ChainSummary(manifests[0], manifests[end], parts[: end + 1])

    def require_folder(self) -> None:
        """Refuse a run folder that does not exist.

        Raises:
            RunError: it does not.
        """
        if not self.path.is_dir():
            raise RunError(f"{self.path}: {NO_FOLDER}")

    def _ends(self, last: int | None = None) -> tuple[FileRecord, int]:
        """Read the record of the newest manifest, and find the number of the last session that is asked for."""
        newest = self.newest()
        if newest is None:
            self.require_folder()
            raise RunError(f"{self.path}: no trained model in it")
        number = session_number(newest)
        if number < 0:
            raise RunError(f"{self.path}: no session in it yet; run 'm2sd distill' first")
        if last is not None and not 0 <= last <= number:
            raise RunError(f"{self.path}: no session {last} in it; the newest is session {number}")
        return newest, number if last is None else last

    def _walk(
        self, newest: FileRecord, in_full: Container[int]
    ) -> tuple[dict[int, StoredManifest], list[Manifest | ManifestSummary]]:
        """Read all sessions, the newest first: the manifests of some in full and of the others a summary.

        Returns:
            The manifests of the sessions in `in_full`, and the manifest or summary of each session, in their order.
        """
        manifests: dict[int, StoredManifest] = {}
        parts: list[Manifest | ManifestSummary] = []
        sha256 = newest.sha256
        for number in range(session_number(newest), -1, -1):
            name = session_name(number)
            part: Manifest | ManifestSummary
            if number in in_full:
                manifests[number] = self.read(name, sha256)
                part = manifests[number].manifest
            else:
                part, _ = self._read(name, sha256, ManifestSummary)
            expected = f"{session_name(number - 1) if number else PRETRAIN}.json"
            if part.parent is None or part.parent.file != expected:
                raise DamagedError(f"{self.path / name}.json: its parent is not {expected}; restore it from a backup")
            sha256 = part.parent.sha256
            parts.append(part)
        parts.reverse()
        classes = ChainClasses()
        for number, part in enumerate(parts):
            try:
                classes.add(part)
            except ValueError as error:
                raise DamagedError(
                    f"{self.path / session_name(number)}.json: {error}; restore it from a backup"
                ) from None
        return dict(reversed(manifests.items())), parts

    def verify(self) -> list[str]:
        """Re-hash every file of the run.

        Returns:
            One sentence for each file that is missing or damaged; empty if all is well.

        Raises:
            RunError: there is no run here.
        """
        try:
            self._verify()
        except DamagedError as error:
            return error.lines
        return []

    @_steadily
    def _verify(self) -> None:
        """Raise a DamagedError with a line for each file that is missing or damaged."""
        problems: list[str] = []
        newest = None
        try:
            newest = self.newest()
            if newest is None:
                self.require_folder()
                raise RunError(f"{self.path}: no run in it")
            numbers = range(session_number(newest) + 1)
        except DamagedError as error:
            problems.append(str(error))
            numbers = range(max(self._listed(), default=-1) + 1)
        sha256 = None if newest is None else newest.sha256
        for name in [*map(session_name, reversed(numbers)), PRETRAIN]:
            try:
                stored = self.read(name, sha256)
            except DamagedError as error:
                problems.append(str(error))
                sha256 = None
                continue
            sha256 = stored.manifest.parent.sha256 if stored.manifest.parent else None
            try:
                self._tensors(stored.manifest.checkpoint)
            except DamagedError as error:
                problems.append(str(error))
        if problems:
            raise DamagedError(*reversed(problems))
        if newest is not None and numbers:
            self._walk(newest, [])  # sound files may still not fit each other
