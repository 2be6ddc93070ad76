"""Reading the chain of a run folder from its newest manifest to its first, whatever others do to it meanwhile."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TypeVar

from m2sd_cli.errors import DamagedError, RunError
from m2sd_cli.runs.manifest import FileRecord, Manifest, ManifestSummary
from m2sd_cli.runs.reader import PRETRAIN, FileReader, StoredManifest, session_name

TRIES = 5  # to read a chain that others keep changing

Result = TypeVar("Result")


@dataclass(frozen=True)
class ChainSummary:
    """A chain with its ends in full: all that using it and adding to it need, in a third of the time of the whole."""

    base: StoredManifest
    last: StoredManifest  # session 0 may be both
    sessions: list[Manifest | ManifestSummary]

    def taught(self) -> dict[str, int]:
        """The session of every class, by its name."""
        return {each.name: number for number, part in enumerate(self.sessions) for each in part.classes}


class ChainReader(FileReader):
    """One run on disk, to be read."""

    def _steadily(self, read: Callable[[], Result]) -> Result:
        """Read again if it fails since others have changed the chain meanwhile."""
        for _ in range(TRIES):
            try:
                return read()
            except DamagedError:
                if self._pointer_bytes() == self._seen:
                    raise
        raise RunError(f"{self.path}: other m2sd commands keep changing it; try again")

    def pretrain(self) -> StoredManifest:
        """The manifest of stage 1.

        Raises:
            RunError: there is none.
            DamagedError: it is missing or changed, or a session is, so that nobody knows what it should be.
        """
        return self._steadily(self._pretrain)

    def _pretrain(self) -> StoredManifest:
        pointer = self.pointer()  # once: others may replace it at any moment
        if not self._has_pretrain(pointer):
            raise RunError(f"{self.path}: no finished pretrain in it; run 'm2sd pretrain' first")
        numbers = self._numbers(pointer)
        if numbers:
            links, _ = self._walk(numbers[-1], pointer, [0])
            parent = links[0].manifest.parent
            assert parent is not None
            return self.read(PRETRAIN, parent.sha256)
        stored = self.read(PRETRAIN, None if pointer is None else pointer.sha256)
        self._refuse_pointerless(stored.manifest, pointer)
        return stored

    def chain(self, last: int | None = None) -> list[StoredManifest]:
        """The manifests of sessions 0..last, each checked against the hash that its child has of it.

        Args:
            last: a session number; None for the newest.

        Raises:
            RunError: the run has no session, or not that one.
            DamagedError: a manifest is missing, changed, or of another chain.
        """

        def read() -> list[StoredManifest]:
            newest, pointer = self._newest(last)
            links, _ = self._walk(newest, pointer, range(1 + (newest if last is None else last)))
            return list(links.values())

        return self._steadily(read)

    def session(self, number: int) -> StoredManifest:
        """The manifest of one session, of a chain that was checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """

        def read() -> StoredManifest:
            links, _ = self._walk(*self._newest(number), [number])
            return links[number]

        return self._steadily(read)

    def summary(self, last: int | None = None) -> ChainSummary:
        """The chain of sessions 0..last in outline, checked as `chain` does.

        Raises:
            RunError, DamagedError: as `chain` does.
        """

        def read() -> ChainSummary:
            newest, pointer = self._newest(last)
            end = newest if last is None else last
            links, parts = self._walk(newest, pointer, [0, end])
            return ChainSummary(links[0], links[end], parts[: end + 1])

        return self._steadily(read)

    def _newest(self, wanted: int | None = None) -> tuple[int, FileRecord | None]:
        """The number of the newest session, and the head that says so, if the chain has one."""
        pointer = self.pointer()
        present = self._numbers(pointer)
        if not present:
            trained = self._has_pretrain(pointer)
            what = "no session in it yet; run 'm2sd distill' first" if trained else "no trained model in it"
            raise RunError(f"{self.path}: {what}" if self.path.is_dir() else f"{self.path}: no such run folder")
        if wanted is not None and not 0 <= wanted <= present[-1]:
            raise RunError(f"{self.path}: no session {wanted} in it; the newest is session {present[-1]}")
        return present[-1], pointer

    def _walk(
        self, newest: int, pointer: FileRecord | None, whole: Container[int]
    ) -> tuple[dict[int, StoredManifest], list[Manifest | ManifestSummary]]:
        """From the newest session to the first, reading some manifests as a whole and of the others the outline.

        Returns:
            the manifests of the sessions in `whole`, and what was read of each session; both in the chain's order.
        """
        links: dict[int, StoredManifest] = {}
        parts: list[Manifest | ManifestSummary] = []
        sha256 = None if pointer is None else pointer.sha256
        for number in range(newest, -1, -1):
            name = session_name(number)
            part: Manifest | ManifestSummary
            # Of a chain without a head nobody vouches for the newest.
            if number in whole or sha256 is None:
                stored = self.read(name, sha256)
                part = stored.manifest
                if number in whole:
                    links[number] = stored
            else:
                part, _ = self._read(name, sha256, ManifestSummary)
            self._refuse_pointerless(part, pointer)
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
        pointer = None
        try:
            pointer = self.pointer()
            numbers = self._numbers(pointer)
        except DamagedError as error:
            problems.append(str(error))
            numbers = self._listed()
        if not numbers and not (problems or self._has_pretrain(pointer)):
            raise RunError(f"{self.path}: no run in it" if self.path.is_dir() else f"{self.path}: no such run folder")
        headless = pointer is None and not problems
        names = [session_name(number) for number in range(max(numbers, default=-1), -1, -1)]
        expected = None if pointer is None else pointer.sha256
        for name in [*names, PRETRAIN]:
            try:
                stored = self.read(name, expected)
                if headless:
                    headless = False
                    self._refuse_pointerless(stored.manifest, pointer)
            except DamagedError as error:
                problems.append(str(error))
                expected = None
                continue
            parent = stored.manifest.parent
            expected = parent.sha256 if parent else None
            try:
                self._tensors(stored.manifest.checkpoint)
            except DamagedError as error:
                problems.append(str(error))
        if problems:
            raise DamagedError(*reversed(problems))
        if numbers:
            self._walk(numbers[-1], pointer, [])  # whole files may still not fit each other
