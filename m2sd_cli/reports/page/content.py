"""The content of the page, which its template reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from m2sd_cli.reports.per_class import ClassFigures


@dataclass(frozen=True)
class Shown:
    """A figure, or the reason why it is left out."""

    name: str
    title: str
    caption: str
    svg: str | None
    reason: str | None


@dataclass(frozen=True)
class TaughtClassEntry:
    """A class of a session."""

    name: str
    shots: str  # their number in words
    thumbnails: Sequence[str]  # addresses


@dataclass(frozen=True)
class SessionEntry:
    """A session, with the classes that it taught or changed."""

    number: int
    kind: str
    classes: Sequence[TaughtClassEntry]
    edits: Sequence[str]
    reason: str | None  # why there are no images


@dataclass(frozen=True)
class WrongImage:
    """A test image that is answered wrongly."""

    image: str  # address
    true: str
    answer: str
    heat: tuple[str, str] | None  # addresses of the heat maps of the answer and of the true class


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused."""

    true: str
    answer: str
    images: int
    share: float  # of the true class's test images, in per cent
    examples: Sequence[str]  # addresses


@dataclass(frozen=True)
class Stage:
    """A manifest of the chain."""

    name: str
    command: str
    created: str
    duration: str
    device: str
    manifest: str  # SHA-256
    parent: str | None
    checkpoint: str
    details: str


@dataclass(frozen=True)
class Tested:
    """The part of the page that needs test images."""

    headline: Sequence[tuple[str, str]]  # a figure and its name
    header: Sequence[str]
    rows: Sequence[Sequence[str]]  # of the table of sessions
    per_class: Sequence[ClassFigures]
    orders: Sequence[str]  # the places of each class in the orders of the table, as variables of CSS
    pairs: Sequence[Pair]
    wrong: Sequence[WrongImage]
    wrong_count: int
    heat_reason: str  # sentences on what is shown of a wrong answer, and on the score that heat maps split
    remarks: Sequence[str]


@dataclass(frozen=True)
class Page:
    """The page of a run."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    sessions: Sequence[SessionEntry]
    figures: Sequence[Shown]
    tested: Tested | None
    untested_reason: str | None  # why there are no test images
    published: Sequence[str]  # names of the published methods in the figures, and the sources of their accuracies
    chain: Sequence[Stage]
    total: str
    written_by: str
