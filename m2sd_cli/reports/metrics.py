"""The field's figures, from counted samples; a batch mean is never averaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

WAITING = 65_536  # pairs that may wait to be counted


@dataclass(frozen=True)
class SessionFigures:
    """How a model does after session b on all test images of the classes so far; accuracies are top-1 in per cent.

    A figure without a test image to count is None.
    """

    session: int
    classes: int  # so far
    images: int  # test images of those classes
    overall: float | None  # share of the images
    base: float | None  # mean over the base classes
    novel: float | None  # mean over the classes of sessions 1..b
    harmonic: float | None  # 2 base novel / (base + novel)


@dataclass(frozen=True)
class Figures:
    """The figures of a chain."""

    sessions: list[SessionFigures]
    average: float | None  # AVG: the mean of `overall` over sessions 0..B
    drop: float | None  # PD: `overall` of session 0 less that of session B, in points


class Pairs(NamedTuple):
    """How often each pair (first[i], second[i]) came up, in the order of the pairs; each (N,) int64 on the CPU."""

    first: Tensor
    second: Tensor
    times: Tensor


class PairCounter:
    """Counts pairs of whole numbers; its memory grows with the pairs that came up, not with all there could be.

    Args:
        columns: every second number lies in [0, columns).
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._keys = self._times = torch.empty(0, dtype=torch.int64)
        self._new: list[Tensor] = []
        self._waiting = 0

    def add(self, first: Tensor, second: Tensor) -> None:
        """Count the pairs (first[i], second[i]), each (B,) int64."""
        self._new.append(first * self._columns + second)
        self._waiting += len(first)
        # Waiting for as many as are counted already keeps the sorting of all of them cheap.
        if self._waiting >= max(WAITING, len(self._keys)):
            self._merge()

    def join(self, collect: Callable[[Tensor], Tensor]) -> None:
        """Count what was counted elsewhere, too; `collect` lays the numbers (N,) of all counters behind one another."""
        self._merge()
        keys, times = collect(self._keys), collect(self._times)
        self._keys, place = torch.unique(keys, return_inverse=True)
        self._times = torch.zeros_like(self._keys).index_add_(0, place, times)

    def pairs(self) -> Pairs:
        """All pairs so far."""
        self._merge()
        first = torch.div(self._keys, self._columns, rounding_mode="floor")
        return Pairs(first, self._keys - first * self._columns, self._times)

    def _merge(self) -> None:
        if self._new:
            new = torch.cat(self._new).cpu()
            self._keys, place = torch.unique(torch.cat([self._keys, new]), return_inverse=True)
            times = torch.cat([self._times, torch.ones_like(new)])
            self._times = torch.zeros_like(self._keys).index_add_(0, place, times)
            self._new, self._waiting = [], 0


class Tally:
    """Counts right answers of every session of a chain in one pass over the test images.

    Session b answers with the best of the first sizes[b] classes. An image of class c, known since session s, is thus
    answered rightly from s on until the first session that knows a class which beats c, and wrongly ever after: all
    that has to be counted of an image is the session that loses it.

    Args:
        sizes: classes known after session 0, 1, ..., ascending.
        device: where logits and labels are.
        confusion: whether to count the answers after the last session too.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device | str = "cpu", confusion: bool = False) -> None:
        self.sizes = list(sizes)
        classes = self.sizes[-1]
        self._taught = sessions_taught(self.sizes, device)
        self._lost = PairCounter(classes)
        self._answers = PairCounter(classes) if confusion else None

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (B, C) of images with labels (B,) in [0, C)."""
        self._lost.add(first_loss(logits, labels, self._taught), labels)
        if self._answers is not None:
            self._answers.add(labels, logits.argmax(dim=1))

    def join(self, collect: Callable[[Tensor], Tensor]) -> None:
        """Count what was counted elsewhere, too; see PairCounter."""
        self._lost.join(collect)
        if self._answers is not None:
            self._answers.join(collect)

    @property
    def untested(self) -> list[int]:
        """Classes without a test image."""
        return torch.nonzero(self._images() == 0).flatten().tolist()

    def confusion(self) -> Pairs | None:
        """Pairs of true class and answer after the last session."""
        return None if self._answers is None else self._answers.pairs()

    def figures(self) -> Figures:
        """What has been counted so far."""
        images = self._images()
        lost = self._lost.pairs()
        number = torch.searchsorted(lost.first, torch.arange(len(self.sizes) + 1)).tolist()
        right = torch.zeros_like(images)  # of each class, in the session that the loop is at
        base_size, before = self.sizes[0], 0
        sessions = []
        for session, size in enumerate(self.sizes):
            right[before:size] = images[before:size]
            here = slice(number[session], number[session + 1])
            right.index_add_(0, lost.second[here], lost.times[here], alpha=-1)
            before = size
            total = int(images[:size].sum())
            accuracy = right[:size].double() / images[:size]  # nan where there is no image
            base = _percent_mean(accuracy[:base_size])
            novel = _percent_mean(accuracy[base_size:])
            sessions.append(
                SessionFigures(
                    session=session,
                    classes=size,
                    images=total,
                    overall=100 * float(right[:size].sum()) / total if total else None,
                    base=base,
                    novel=novel,
                    harmonic=None if base is None or novel is None else harmonic_mean(base, novel),
                )
            )
        overall = [each.overall for each in sessions if each.overall is not None]
        complete = len(overall) == len(sessions)
        return Figures(
            sessions=sessions,
            average=sum(overall) / len(overall) if complete else None,
            drop=overall[0] - overall[-1] if complete else None,
        )

    def _images(self) -> Tensor:
        """(C,) test images of each class."""
        lost = self._lost.pairs()
        return torch.zeros(self.sizes[-1], dtype=torch.int64).index_add_(0, lost.second, lost.times)


def sessions_taught(sizes: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """(C + 1,) the session that teaches each class, and one past the last session for no class.

    Args:
        sizes: classes known after session 0, 1, ..., ascending.
        device: where to put it.
    """
    new = torch.tensor([0, *sizes], device=device).diff()
    sessions = torch.arange(len(sizes) + 1, device=device)
    return torch.cat([sessions[:-1].repeat_interleave(new), sessions[-1:]])


def first_loss(logits: Tensor, labels: Tensor, taught: Tensor) -> Tensor:
    """(B,) the session from which on an image's class is beaten, one past the last session if none beats it.

    Args:
        logits: (B, C).
        labels: (B,) in [0, C).
        taught: of `sessions_taught`.
    """
    columns = torch.arange(logits.shape[1], device=logits.device)
    label = labels[:, None]
    own = logits.gather(1, label)
    # An earlier class wins a draw, as it does in one argmax over the whole prefix.
    behind = (logits < own) | ((logits == own) & (columns >= label))
    beaten_by_none, rival = behind.min(dim=1)  # the first class that is not behind
    rival = torch.where(beaten_by_none, len(columns), rival)
    return torch.maximum(taught[rival], taught[labels])


def harmonic_mean(first: float, second: float) -> float:
    """2 a b / (a + b); 0 if both are 0."""
    return 2 * first * second / (first + second) if first + second else 0.0


def counted(figure: float | None) -> float:
    """A figure of a built-in data set, every class of which has test images to count."""
    assert figure is not None, "a class of a built-in data set has no test image"
    return figure


def _percent_mean(accuracies: Tensor) -> float | None:
    counted = accuracies[~accuracies.isnan()]
    return 100 * float(counted.mean()) if len(counted) else None
