"""Accuracies of a chain: overall, base, novel, HM, AVG, AHM and PD."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SessionFigures:
    """Accuracies after session b on all test images of the classes so far, top-1 in per cent.

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
    """Accuracies of a chain."""

    sessions: list[SessionFigures]
    average: float | None  # AVG: the mean of `overall` over sessions 0..B
    drop: float | None  # PD: `overall` of session 0 less that of session B, in points
    average_harmonic: float | None  # AHM: the mean of `harmonic` over sessions 1..B; None of a base session alone


def chain_figures(labels: Tensor, lost: Tensor, sizes: Sequence[int]) -> Figures:
    """Compute the accuracies of every session of a chain in which each session only adds classes.

    Args: those of `session_figures`.
    """
    return summarise(session_figures(labels, lost, sizes, sizes[0]))


def session_figures(
    labels: Tensor, lost: Tensor, sizes: Sequence[int], base_classes: int, first: int = 0
) -> list[SessionFigures]:
    """Compute the accuracies of consecutive sessions, each of which only adds classes to the one before.

    Args:
        labels: (N,) class of each image in [0, C).
        lost: (N,) session from which on each image is answered wrongly, see `first_loss`; the first one counts as 0.
        sizes: classes known after each session, ascending; C after the last one.
        base_classes: how many of the first classes are base classes.
        first: the number of the first session.
    """
    images = torch.bincount(labels, minlength=sizes[-1])
    sessions = []
    for session, size in enumerate(sizes):
        right = torch.bincount(labels[lost > session], minlength=sizes[-1])[:size]
        total = int(images[:size].sum())
        accuracy = right.double() / images[:size]  # nan where there is no image
        base, novel = _percent_mean(accuracy[:base_classes]), _percent_mean(accuracy[base_classes:])
        sessions.append(
            SessionFigures(
                session=first + session,
                classes=size,
                images=total,
                overall=100 * float(right.sum()) / total if total else None,
                base=base,
                novel=novel,
                harmonic=None if base is None or novel is None else harmonic_mean(base, novel),
            )
        )
    return sessions


def summarise(sessions: list[SessionFigures]) -> Figures:
    """Add AVG and PD to the figures of all sessions of a chain."""
    overall = [each.overall for each in sessions if each.overall is not None]
    harmonic = [each.harmonic for each in sessions[1:] if each.harmonic is not None]
    complete = len(overall) == len(sessions)
    return Figures(
        sessions=sessions,
        average=sum(overall) / len(overall) if complete else None,
        drop=overall[0] - overall[-1] if complete else None,
        average_harmonic=sum(harmonic) / len(harmonic) if harmonic and len(harmonic) == len(sessions) - 1 else None,
    )


def harmonic_mean(first: float, second: float) -> float:
    """Compute 2 a b / (a + b); 0 if both are 0."""
    return 2 * first * second / (first + second) if first + second else 0.0


def require_figure(figure: float | None) -> float:
    """Return a figure of a built-in data set, every class of which has test images."""
    assert figure is not None, "a class of a built-in data set has no test image"
    return figure


def _percent_mean(accuracies: Tensor) -> float | None:
    tested = accuracies[~accuracies.isnan()]
    return 100 * float(tested.mean()) if len(tested) else None
