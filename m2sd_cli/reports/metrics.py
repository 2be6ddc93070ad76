"""The field's figures, from counted samples; a batch mean is never averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


class Tally:
    """Counts right answers of every session of a chain in one pass over the test images.

    Session b answers with the best of the first sizes[b] classes; the best of a longer prefix is found from that of
    the shorter one and the classes in between, so that each logit is looked at once.

    Args:
        sizes: classes known after session 0, 1, ..., ascending.
        device: where logits and labels are.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.sizes = list(sizes)
        self._segments = list(zip([0, *self.sizes], self.sizes, strict=False))
        self._right = torch.zeros(len(self.sizes), self.sizes[-1], dtype=torch.int64, device=device)
        self._images = torch.zeros(self.sizes[-1], dtype=torch.int64, device=device)
        self._confusion = torch.zeros(self.sizes[-1] ** 2, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (B, C) of images with labels (B,) in [0, C)."""
        classes = self.sizes[-1]
        best = torch.full_like(logits[:, 0], -torch.inf)
        answer = torch.zeros_like(labels)
        for session, (first, last) in enumerate(self._segments):
            if last > first:
                top, where = logits[:, first:last].max(dim=1)
                # An earlier class wins a draw, as it does in one argmax over the whole prefix.
                newer = top > best
                best, answer = torch.where(newer, top, best), torch.where(newer, where + first, answer)
            self._right[session] += torch.bincount(labels, answer == labels, minlength=classes).long()
        self._images += torch.bincount(labels, minlength=classes)
        self._confusion += torch.bincount(labels * classes + answer, minlength=classes**2)

    @property
    def untested(self) -> list[int]:
        """Classes without a test image."""
        return torch.nonzero(self._images == 0).flatten().tolist()

    def confusion(self) -> Tensor:
        """(C, C) counts after the last session: rows are the true classes, columns the answers."""
        return self._confusion.view(self.sizes[-1], -1).cpu()

    def figures(self) -> Figures:
        """What has been counted so far."""
        right, images = self._right.double().cpu(), self._images.cpu()
        base_size = self.sizes[0]
        sessions = []
        for number, size in enumerate(self.sizes):
            counted = images[:size]
            total = int(counted.sum())
            accuracy = right[number, :size] / counted  # nan where there is no image
            base = _percent_mean(accuracy[:base_size])
            novel = _percent_mean(accuracy[base_size:])
            sessions.append(
                SessionFigures(
                    session=number,
                    classes=size,
                    images=total,
                    overall=100 * float(right[number, :size].sum()) / total if total else None,
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


def harmonic_mean(first: float, second: float) -> float:
    """2 a b / (a + b); 0 if both are 0."""
    return 2 * first * second / (first + second) if first + second else 0.0


def _percent_mean(accuracies: Tensor) -> float | None:
    counted = accuracies[~accuracies.isnan()]
    return 100 * float(counted.mean()) if len(counted) else None
