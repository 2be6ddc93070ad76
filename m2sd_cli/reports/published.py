"""Figures that others have published on the official sessions, to be read beside a run."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import UsageError
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.tables import BACKBONES

FILE: Final = Path(__file__).with_name("published.toml")
TRAINED_W: Final = "+"  # marks a figure of session 0
MARKS: Final[dict[bool | str, str]] = {True: " *", False: "", "unknown": " ?"}  # of how the epoch was chosen


@dataclass(frozen=True)
class Row:
    """Figures of a method on one data set with one backbone; accuracies are top-1 in per cent.

    They are decimal, so that each is shown with its published digits.
    """

    data: str
    backbone: str  # as papers call it
    figures_from: str  # the place where the figures were read
    base: Decimal | None = None  # of session 0
    last: Decimal | None = None  # overall, after the last session
    average: Decimal | None = None  # AVG
    novel: Decimal | None = None  # after the last session
    harmonic: Decimal | None = None  # likewise
    sessions: Sequence[Decimal] | None = None  # overall, after every session, where that is known

    @property
    def drop(self) -> Decimal | None:
        """PD, in points."""
        return None if self.base is None or self.last is None else self.base - self.last


@dataclass(frozen=True)
class Method:
    """A published method."""

    name: str
    year: int
    paper: str
    epoch_chosen_on_test: bool | Literal["unknown"]  # True if accuracy on test images chose the epoch
    rows: Sequence[Row]
    epoch_seen_in: str | None = None  # the place in the authors' code that shows the choice
    trained_w_in_session_0: bool = False  # True if session 0 may be answered by the trained W, and not by class means


@dataclass(frozen=True)
class Published:
    """A published row and its method."""

    method: Method
    row: Row

    @property
    def mark(self) -> str:
        """The mark behind the name of the method, of how its epoch was chosen; see `explain_marks`."""
        return MARKS[self.method.epoch_chosen_on_test]

    @property
    def marked_base(self) -> str | Decimal | None:
        """The figure of session 0, with a mark if the trained W may have answered."""
        return f"{self.row.base}{TRAINED_W}" if self.method.trained_w_in_session_0 else self.row.base

    @property
    def source(self) -> str:
        """Paper, figures and choice of the epoch, in one line."""
        seen = self.method.epoch_seen_in
        return f"{self.method.paper}; figures: {self.row.figures_from}" + (f"; epoch: {seen}" if seen else "")

    def as_data(self) -> dict[str, Any]:
        """Convert to the fields that JSON has."""
        fields = {**vars(self.method), **vars(self.row), "drop": self.row.drop}
        del fields["rows"]
        return {name: _as_float(value) for name, value in fields.items()}


def _as_float(value: object) -> object:
    if isinstance(value, list):
        return [_as_float(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


@dataclass(frozen=True)
class Comparison:
    """Published rows on the data set of a run, with its backbone."""

    data: str
    backbone: str  # as papers call it, or our name of one that none has
    rows: list[Published]  # by year, within a year by AVG; those without AVG first
    others: int  # the number of rows of other backbones
    official: int  # sessions of the data set after session 0
    comparable: bool  # True if the sessions of the run are the official ones
    other_training: list[str] = field(default_factory=list)  # see `other_training`
    other_base: list[str] = field(default_factory=list)  # differences for which not even session 0 can be compared


def joined(comparisons: Sequence[Comparison]) -> Comparison:
    """Join the comparisons of runs of one data set, whose mean is compared: every run has to be comparable.

    Runs of several backbones have no published rows, nor have runs of which one has other base classes.
    """
    alike = len({each.backbone for each in comparisons}) == 1
    return replace(
        comparisons[0],
        backbone=" and ".join(dict.fromkeys(each.backbone for each in comparisons)),
        rows=comparisons[0].rows if alike and all(each.rows for each in comparisons) else [],
        comparable=alike and all(each.comparable for each in comparisons),
        other_training=list(dict.fromkeys(chain.from_iterable(each.other_training for each in comparisons))),
        other_base=list(dict.fromkeys(chain.from_iterable(each.other_base for each in comparisons))),
    )


@cache
def published_methods() -> tuple[Method, ...]:
    """Read every method of the file that ships in the package."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"), parse_float=Decimal)
    return tuple(Method(**{**each, "rows": [Row(**row) for row in each["rows"]]}) for each in content["methods"])


def compare_with_published(first: Manifest, sessions: Sequence[Manifest]) -> Comparison:
    """Choose the published rows to read beside a run.

    Args:
        first: the manifest of stage 1.
        sessions: the manifests of sessions 0, 1, ...

    Raises:
        UsageError: nothing is published on the run's data set.
    """
    base = sessions[0]
    every = [Published(method, row) for method in published_methods() for row in method.rows]
    known = sorted({each.row.data for each in every})
    if base.data.kind != "built-in" or base.data.name not in known:
        raise UsageError(
            f"--compare: nothing is published on {base.data.name!r}, only on {', '.join(known)}; leave --compare out"
        )
    name = base.backbone.name
    backbone = BACKBONES[name].label if name in BACKBONES else name
    here = [each for each in every if each.row.data == base.data.name]
    rows = sorted(
        (each for each in here if each.row.backbone == backbone),
        key=lambda each: (each.method.year, each.row.average or Decimal()),
    )
    others = len(here) - len(rows)
    official, protocol = DATA_SETS[base.data.name], base.data.protocol
    other_base = []
    if protocol is not None:
        if protocol.base_classes != official.base:
            other_base.append(f"{protocol.base_classes} base classes, not {official.base}")
        if protocol.class_order is not None:
            other_base.append("its classes in another order")
        rows = [] if other_base else [_only_session_0(each) for each in rows if each.row.base is not None]
    return Comparison(
        data=base.data.name,
        backbone=backbone,
        rows=rows,
        others=others,
        official=official.sessions,
        comparable=protocol is None
        and [each.kind for each in sessions] == ["base", *["increment"] * official.sessions]
        and all(each.data == base.data for each in sessions),
        other_base=other_base,
        other_training=other_training(first),
    )


def other_training(first: Manifest) -> list[str]:
    """Return predicates of sentences about a run trained on other images than the field, or from other weights.

    The field trains on all base images, from random weights; on CUB-200 from those of ImageNet.

    Args:
        first: the manifest of stage 1, of a built-in data set.
    """
    images, share, init = (first.config.get(name) for name in ("images_per_class", "held_out", "init"))
    told = []
    if images is not None:
        told.append(f"was trained on {images} images of each base class, the published ones on all")
    elif isinstance(share, float) and share > 0:
        told.append(
            f"held {100 * share:g} % of each base class out of training, the published ones none (--held-out 0)"
        )
    usual = DATA_SETS[first.data.name].defaults.get("init") if first.data.name in DATA_SETS else None
    begun = [weights if weights not in (None, "none") else "random" for weights in (init, usual)]
    if begun[0] != begun[1]:
        told.append(f"began from {begun[0]} weights, the published ones from {begun[1]} ones")
    return told


def explain_marks(rows: Sequence[Published], run: str) -> list[str]:
    """Explain the marks of published rows, a line each.

    Args:
        rows: that are shown.
        run: the name of the row that they stand beside.
    """
    if not rows:
        return []
    return [
        f"* epoch chosen by the accuracy on the test images; ? not known; {run}: the last epoch",
        f"{TRAINED_W} perhaps answers of the trained W; {run}: those of the classifier that answers in all sessions",
    ]


def _only_session_0(published: Published) -> Published:
    row = replace(published.row, last=None, average=None, novel=None, harmonic=None, sessions=None)
    return replace(published, row=row)
