"""How well a score tells images of known classes from others: AUROC, and FPR at 95 % TPR."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 1024  # of the score


@dataclass(frozen=True)
class SeparationFigures:
    """Figures of one session in per cent, known images being the positives; None without images of both kinds."""

    known: int  # images
    unknown: int
    auroc: float | None  # chance that a known image has the higher score than an unknown one; a draw counts half
    auroc_error: float | None  # what the rounding of scores may have changed of it at most, in points
    fpr95: float | None  # share of unknown images taken for known, where 95 % of the known ones are


class Separation:
    """Counts scores of known and unknown images in bins, for several sessions at once.

    Memory grows with the sessions, not with the images, and only whole numbers are added: batches and processes change
    no digit. The figures are exact for scores rounded down to multiples of 1 / bins: pairs of one bin count as draws,
    which moves AUROC by half their share at most.

    Args:
        sessions: S.
        device: where scores are.
        bins: H, of equal width over [0, 1].
    """

    def __init__(self, sessions: int, device: torch.device | str = "cpu", bins: int = BINS) -> None:
        self._counts = torch.zeros(2, sessions, bins, dtype=torch.int64, device=device)
        self._sessions = torch.arange(sessions, device=device)

    def add(self, scores: Tensor, known: Tensor) -> None:
        """Count B images.

        Args:
            scores: (B, S) within [0, 1], the higher the more known; what is outside counts as the nearest end.
            known: (B, S), bool.
        """
        _, sessions, bins = self._counts.shape
        place = (scores * bins).long().clamp(0, bins - 1)
        place += (known * sessions + self._sessions) * bins
        self._counts.view(-1).index_add_(0, place.flatten(), torch.ones_like(place).flatten())

    def join(self, collect: Callable[[Tensor], Tensor]) -> None:
        """Count what was counted elsewhere, too; `collect` lays the numbers (N,) of all counters behind one another."""
        self._counts = summed(self._counts, collect)

    def figures(self) -> list[SeparationFigures]:
        """What has been counted so far, a row a session."""
        unknown, known = self._counts.cpu()
        images = known.sum(dim=1, keepdim=True), unknown.sum(dim=1, keepdim=True)
        pairs = (images[0] * images[1]).double().squeeze(1)
        below = unknown.cumsum(dim=1) - unknown
        wins = (known * (2 * below + unknown)).sum(dim=1) / (2 * pairs)  # nan where there is no pair
        draws = (known * unknown).sum(dim=1) / (2 * pairs)
        # The highest bin from which on 95 % of the known images lie.
        enough = 100 * _from_here_on(known) >= 95 * images[0]
        edge = enough.sum(dim=1, keepdim=True) - 1
        passed = (_from_here_on(unknown).gather(1, edge).double() / images[1]).squeeze(1)
        rows = zip(images[0].tolist(), images[1].tolist(), wins.tolist(), draws.tolist(), passed.tolist(), strict=True)
        return [
            SeparationFigures(k, u, 100 * win, 100 * draw, 100 * fpr)
            if k and u
            else SeparationFigures(k, u, None, None, None)
            for (k,), (u,), win, draw, fpr in rows
        ]


def summed(counts: Tensor, collect: Callable[[Tensor], Tensor]) -> Tensor:
    """Counts of all processes added up, in the shape that they have everywhere; on the CPU."""
    return collect(counts.cpu().flatten()).view(-1, *counts.shape).sum(dim=0)


def _from_here_on(counts: Tensor) -> Tensor:
    return counts.flip(1).cumsum(dim=1).flip(1)
