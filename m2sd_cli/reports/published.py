"""What others have published on the official sessions, to be read beside a run of ours."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, computed_field, model_validator

from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import UsageError
from m2sd_cli.registry import BACKBONES
from m2sd_cli.runs.manifest import Manifest, Setting

FILE: Final = Path(__file__).with_name("published.toml")

# Decimal, so that a figure is shown with the digits with which it was published.
Percent = Annotated[Decimal, Field(ge=0, le=100), PlainSerializer(float, when_used="json")]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Frozen, without room for fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(Strict):
    """The figures of a method on one data set with one backbone; accuracies are top-1 in per cent."""

    data: Text
    backbone: Text  # as papers call it
    base: Percent  # of session 0
    last: Percent  # overall, after the last session
    average: Percent  # AVG
    novel: Percent | None = None  # after the last session
    harmonic: Percent | None = None  # likewise
    sessions: list[Percent] | None = None  # overall, after every session, where that is known
    figures_from: Text  # where they were read

    @computed_field  # type: ignore[prop-decorator]
    @property
    def drop(self) -> Percent:
        """PD, in points."""
        return self.base - self.last

    @model_validator(mode="after")
    def _is_consistent(self) -> "Row":
        if self.sessions is not None:
            mean = sum(self.sessions, Decimal()) / len(self.sessions)
            if (self.sessions[0], self.sessions[-1]) != (self.base, self.last):
                raise ValueError("the first and last of the sessions are not base and last")
            if abs(mean - self.average) > Decimal("0.01"):
                raise ValueError(f"AVG is {mean:.2f} by the sessions, not {self.average}")
        return self


class Method(Strict):
    """A method, and whether its epoch was chosen by accuracy on the test images."""

    name: Text
    year: int
    paper: Text
    epoch_chosen_on_test: bool | Literal["unknown"]
    epoch_seen_in: Text | None = None  # the place in the authors' code that tells
    rows: list[Row]

    @model_validator(mode="after")
    def _has_a_witness(self) -> "Method":
        if (self.epoch_chosen_on_test == "unknown") != (self.epoch_seen_in is None):
            raise ValueError("epoch_seen_in has to name where the choice of the epoch was seen")
        return self


@dataclass(frozen=True)
class Published:
    """One row, and the method that it is of."""

    method: Method
    row: Row

    @property
    def source(self) -> str:
        """Paper, figures and choice of the epoch, as one line."""
        seen = self.method.epoch_seen_in
        return f"{self.method.paper}; figures: {self.row.figures_from}" + (f"; epoch: {seen}" if seen else "")

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return self.method.model_dump(mode="json", exclude={"rows"}) | self.row.model_dump(mode="json")


@dataclass(frozen=True)
class Comparison:
    """What is published on the data set of a run, with its backbone."""

    data: str
    backbone: str  # as papers call it, or our name of one that none has
    rows: list[Published]  # from the oldest to the newest, and from the lowest AVG of a year to the highest
    others: int  # rows of other backbones
    taught: int  # sessions of the run after session 0
    official: int  # of the data set
    comparable: bool  # whether the run has just the official sessions
    images_per_class: Setting = None  # that the run was trained on, of each base class; None for all


@cache
def published_methods() -> tuple[Method, ...]:
    """Every method of the file, validated."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"), parse_float=Decimal)
    return tuple(Method(**each) for each in content["methods"])


def compare_with_published(first: Manifest, sessions: Sequence[Manifest]) -> Comparison:
    """The published rows to read beside a run.

    Args:
        first: the manifest of stage 1.
        sessions: those of sessions 0, 1, ...

    Raises:
        UsageError: nothing is published on the run's data set.
    """
    base = sessions[0]
    every = [Published(method, row) for method in published_methods() for row in method.rows]
    known = sorted({each.row.data for each in every})
    if base.data.kind != "built-in" or base.data.name not in known:
        raise UsageError(f"--compare: nothing is published on {base.data.name!r}; only on {', '.join(known)}")
    name = base.backbone.name
    backbone = BACKBONES[name].label if name in BACKBONES else name
    here = [each for each in every if each.row.data == base.data.name]
    rows = sorted(
        (each for each in here if each.row.backbone == backbone), key=lambda each: (each.method.year, each.row.average)
    )
    official = DATA_SETS[base.data.name].sessions
    return Comparison(
        data=base.data.name,
        backbone=backbone,
        rows=rows,
        others=len(here) - len(rows),
        taught=len(sessions) - 1,
        official=official,
        comparable=len(sessions) == 1 + official and all(each.data == base.data for each in sessions),
        images_per_class=first.config.get("images_per_class"),
    )
