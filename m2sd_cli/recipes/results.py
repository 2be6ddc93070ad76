"""Figures that were measured with the recipes, as `results.toml` has them."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Final

from m2sd_cli.recipes import FOLDER, RESULTS

FILE: Final = FOLDER / RESULTS
UNKNOWN: Final = "not yet measured"
Figure = tuple[Decimal, Decimal]  # mean and deviation over the seeds


@dataclass(frozen=True)
class Measured:
    """The result of a recipe at its full length on its official sessions; accuracies are top-1 in per cent."""

    hardware: str
    time: str
    seeds: Sequence[int]
    last: Figure
    average: Figure
    base: Figure
    novel: Figure
    harmonic: Figure
    base_session: Figure | None = None
    unlike: str = ""  # the part of the recipe that has changed since

    @property
    def accuracy(self) -> str:
        """Return the means in one line."""
        means = f"AVG {self.average[0]}, last {self.last[0]}, HM {self.harmonic[0]}"
        unlike = f"; before {self.unlike}" if self.unlike else ""
        return f"{means} (mean of {len(self.seeds)} seeds{unlike})"


@cache
def read_results() -> dict[str, Any]:
    """Read the file, with the digits as they were written."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"), parse_float=Decimal)


def find_measured(recipe: str | None) -> Measured | None:
    """Return the result of a recipe; None if it has not been measured."""
    found = read_results()["recipes"].get(recipe)
    return found and Measured(**found)


def words_on(recipe: str | None) -> dict[str, str]:
    """Return hardware, time and accuracy of a recipe in words."""
    found = find_measured(recipe)
    return {name: getattr(found, name, UNKNOWN) for name in ("hardware", "time", "accuracy")}
