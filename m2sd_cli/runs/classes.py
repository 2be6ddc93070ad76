"""The classes of a chain: names, shots and forgetting, followed session by session."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from m2sd_cli.runs.manifest import ClassName, ClassRecord, Manifest, ManifestSummary


@dataclass
class TaughtClass:
    """A class of a chain, as it is after the last session that was followed."""

    index: int
    name: str
    session: int  # that taught it first
    shots: list[tuple[int, int]]  # of each session that taught it: its number, and the class's place in it
    views: int | None  # of each shot; None for a base class
    earlier_names: list[str] = field(default_factory=list)
    forgotten: int | None = None  # the session that forgot it


class ChainClasses:
    """The classes that the sessions of a chain have taught so far, forgotten ones included, in the order of indices."""

    def __init__(self) -> None:
        self.all: list[TaughtClass] = []
        self.named: list[tuple[str, int]] = []  # every name that a class was given, in that order, and its index
        self.count = 0  # of those not forgotten
        self.sessions = 0

    @classmethod
    def of(cls, parts: Iterable[Manifest | ManifestSummary]) -> Self:
        """Follow sessions 0, 1, ..., each of which fits those before it."""
        classes = cls()
        for part in parts:
            classes.add(part)
        return classes

    def add(self, part: Manifest | ManifestSummary) -> None:
        """Follow the next session.

        Raises:
            ValueError: the session does not fit those before it; the message names the reason.
        """
        if part.classes_before != len(self.all):
            raise ValueError("its class indices do not follow the chain's")
        for each in part.edits:
            known = self._known(each.index, each.name)
            if each.new_name is None:
                known.forgotten = self.sessions
                self.count -= 1
            else:
                known.earlier_names.append(known.name)
                known.name = each.new_name
                self.named.append((known.name, known.index))
        classes: Sequence[ClassRecord | ClassName] = part.classes
        for place, taught in enumerate(classes):
            if part.kind == "extend":
                known = self._known(taught.index, taught.name)
                if part.views != (known.views or 1):
                    raise ValueError(f"it has other views of {taught.name!r} than an earlier session")
                known.shots.append((self.sessions, place))
            else:
                first = [(self.sessions, place)]
                self.all.append(TaughtClass(taught.index, taught.name, self.sessions, first, part.views))
                self.named.append((taught.name, taught.index))
                self.count += 1
        self.sessions += 1

    def _known(self, index: int, name: str) -> TaughtClass:
        if not 0 <= index < len(self.all) or self.all[index].name != name or self.all[index].forgotten is not None:
            raise ValueError(f"no earlier session knows a class {name!r} of index {index}")
        return self.all[index]

    @property
    def known(self) -> list[TaughtClass]:
        """The classes that were not forgotten."""
        return [each for each in self.all if each.forgotten is None]
