"""Mean and deviation of figures that were measured several times."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Spread:
    """Over seeds, or over draws of the shots."""

    mean: float
    deviation: float | None  # of the sample, with n - 1; None of one value


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample deviation of at least one value."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)
