"""Accuracies of a chain: overall, base, novel, HM, AVG, AHM, PD, top-5 and forgetting."""

import itertools
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
    top5: float | None = None  # share of the images whose class is among the five best; None if it was not counted
    # Chaudhry et al., ECCV 2018, in points: the highest accuracy of a class in an earlier session less its accuracy in
    # this one, a mean over the classes of earlier sessions. None of session 0.
    forgetting: float | None = None


@dataclass(frozen=True)
class Figures:
    """Accuracies of a chain."""

    sessions: list[SessionFigures]
    average: float | None  # AVG: the mean of `overall` over session 0 and the sessions that teach new classes
    drop: float | None  # PD: `overall` of session 0 less that of session B, in points
    average_harmonic: float | None  # AHM: the mean of `harmonic` over those after session 0; None without any


def chain_figures(labels: Tensor, lost: Tensor, sizes: Sequence[int]) -> Figures:
    """Compute the accuracies of every session of a chain in which each session only adds classes.

    Args: those of `session_figures`.
    """
    return summarise(session_figures(labels, lost, sizes, sizes[0]))


def class_accuracies(labels: Tensor, lost: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Compute the accuracy of every class in every session, in per cent.

    Args: those of `session_figures`.

    Returns:
        For each session (C_b,) float64, of the classes that it knows; nan of a class without an image.
    """
    images = torch.bincount(labels, minlength=sizes[-1])
    return [
        100 * torch.bincount(labels[lost > session], minlength=sizes[-1])[:size].double() / images[:size]
        for session, size in enumerate(sizes)
    ]


def session_figures(
    labels: Tensor,
    lost: Tensor,
    sizes: Sequence[int],
    base_classes: int,
    first: int = 0,
    lost_top5: Tensor | None = None,
    highest: Tensor | None = None,
) -> list[SessionFigures]:
    """Compute the accuracies of consecutive sessions, each of which only adds classes to the one before.

    Args:
        labels: (N,) class of each image in [0, C).
        lost: (N,) session from which on each image is answered wrongly, see `first_loss`; the first one counts as 0.
        sizes: classes known after each session, ascending; C after the last one.
        base_classes: the number of base classes, which come first.
        first: the number of the first session.
        lost_top5: (N,) as `lost`, with the five best answers.
        highest: (C,) highest accuracy of each class in the sessions before `first`; nan of a class without one.
    """
    best = torch.full((sizes[-1],), torch.nan, dtype=torch.float64) if highest is None else highest
    sessions = []
    for session, accuracy in enumerate(class_accuracies(labels, lost, sizes)):
        size = sizes[session]
        known = labels < size
        total = int(known.sum())
        base, novel = _mean(accuracy[:base_classes]), _mean(accuracy[base_classes:])
        sessions.append(
            SessionFigures(
                session=first + session,
                classes=size,
                images=total,
                overall=_share(known & (lost > session), total),
                base=base,
                novel=novel,
                harmonic=None if base is None or novel is None else harmonic_mean(base, novel),
                top5=None if lost_top5 is None else _share(known & (lost_top5 > session), total),
                forgetting=_mean(best[:size] - accuracy),
            )
        )
        best = torch.cat([torch.fmax(best[:size], accuracy), best[size:]])
    return sessions


def summarise(sessions: list[SessionFigures]) -> Figures:
    """Add AVG, AHM and PD to the figures of all sessions of a chain.

    A session that renames, forgets or extends classes adds none. It is no step of the experiment, so that AVG and AHM
    leave it out.
    """
    taught = [after for before, after in itertools.pairwise(sessions) if after.classes > before.classes]
    first, last = sessions[0].overall, sessions[-1].overall
    return Figures(
        sessions=sessions,
        average=_complete_mean([each.overall for each in (sessions[0], *taught)]),
        drop=None if first is None or last is None else first - last,
        average_harmonic=_complete_mean([each.harmonic for each in taught]),
    )


def harmonic_mean(first: float, second: float) -> float:
    """Compute 2 a b / (a + b); 0 if both are 0."""
    return 2 * first * second / (first + second) if first + second else 0.0


def require_figure(figure: float | None) -> float:
    """Return a figure of a built-in data set, every class of which has test images."""
    assert figure is not None, "a class of a built-in data set has no test image"
    return figure


def _complete_mean(figures: Sequence[float | None]) -> float | None:
    """Average figures; None if one is missing, or there are none."""
    known = [each for each in figures if each is not None]
    return sum(known) / len(known) if known and len(known) == len(figures) else None


def _share(right: Tensor, images: int) -> float | None:
    return 100 * float(right.sum()) / images if images else None


def _mean(figures: Tensor) -> float | None:
    known = figures[~figures.isnan()]
    return float(known.mean()) if len(known) else None
