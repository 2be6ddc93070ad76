"""Mean and deviation of a figure over seeds, or over draws of the shots."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Self


@dataclass(frozen=True)
class MeanAndDeviation:
    """Mean and standard deviation of a sample."""

    mean: float
    deviation: float | None  # with n - 1; None of one value

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Compute both from at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)
