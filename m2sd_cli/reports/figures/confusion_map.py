"""Confusion matrix as a heat map, its classes in the order in which they were taught."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from m2sd_cli.reading import printable
from m2sd_cli.reports.figures.svg import box, label, number, rule, svg

MOST_CELLS = 250  # a side; with more classes neighbours share a cell
LEVELS = 10  # of the shade
LEGEND = 96  # the left edge of the legend, in units
TOP, LEFT, RIGHT = 28, 46, 396
MOST_NAMES = 20  # classes that have room for their names
LONGEST_NAME = 16  # characters
NARROWEST = 8  # units of a session with a rule before it; the first taught session has one at any width


def confusion_shares(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Compute the share of the test images of each true class (rows) that each answer (columns) got.

    Args:
        labels: (N,) true class in [0, C).
        predicted: (N,) answer in [0, C).
        classes: C; neighbours share a cell if there are more than MOST_CELLS.

    Returns:
        (K, K) float64 with K <= MOST_CELLS; a row without an image is 0.
    """
    shared = -(-classes // MOST_CELLS)
    side = -(-classes // shared)
    counts = torch.bincount(labels // shared * side + predicted // shared, minlength=side * side).view(side, side)
    return counts.double() / counts.sum(dim=1, keepdim=True).clamp_min(1)


def draw_confusion(labels: Tensor, predicted: Tensor, taught: Sequence[int], names: Sequence[str]) -> str:
    """Draw the matrix; the darker a cell, the larger the share of the row's test images.

    Args:
        labels: (N,) true class in [0, C), at least one.
        predicted: (N,) answer in [0, C).
        taught: the session of each of the C classes, ascending.
        names: of the C classes; written at the rows if there are MOST_NAMES at most.
    """
    rows = [_shortened(name) for name in names] if len(names) <= MOST_NAMES else []
    left = max(LEFT, 28 + 5.7 * max(map(len, rows), default=0))
    side = RIGHT - left
    shares = confusion_shares(labels, predicted, len(taught))
    cell = side / len(shares)
    parts = []
    levels = (shares * LEVELS).ceil().long()
    for level in range(1, LEVELS + 1):
        cells = (levels == level).nonzero().tolist()
        d = "".join(f"M{column} {row}h1v1h-1z" for row, column in cells)
        if d:
            parts.append(f'<path class="heat" fill-opacity="{number(0.04 + 0.96 * level / LEVELS)}" d="{d}"/>')
    place = f"translate({number(left)} {TOP}) scale({cell:.4f})"
    drawn = [f'<g transform="{place}">{"".join(parts)}</g>', box(left, TOP, side, side, "frame")]
    begin, free = 0, 0.0
    for session, group in groupby(taught):
        end = begin + len(list(group))
        first, after = (side * each / len(taught) for each in (begin, end))
        is_first = begin and taught[begin - 1] == taught[0]
        if is_first or (begin and after - first >= NARROWEST):  # rules of narrow sessions would hide the cells
            drawn += [
                rule(left + first, TOP, left + first, TOP + side, "frame"),
                rule(left, TOP + first, left + side, TOP + first, "frame"),
            ]
        middle = (first + after) / 2
        if middle >= free:  # narrow sessions leave no room for all their numbers
            drawn.append(label(left + middle, TOP - 5, str(session)))
            if not rows:
                drawn.append(label(left - 5, TOP + middle + 4, str(session), anchor="end"))
            free = middle + 26
        begin = end
    for row, name in enumerate(rows):
        drawn.append(label(left - 5, TOP + cell * (row + 0.5) + 4, name, anchor="end"))
    drawn.append(label(left + side / 2, 11, "answer, by session", "name"))
    drawn.append(label(11, TOP + side / 2, "true class" if rows else "true class, by session", "name", turn=-90))
    bottom = TOP + side + 12
    for level in range(LEVELS):
        opacity = f'fill-opacity="{number(0.04 + 0.96 * (level + 1) / LEVELS)}"'
        drawn.append(f'<rect class="heat" {opacity} x="{LEGEND + 16 * level}" y="{bottom}" width="16" height="9"/>')
    drawn.append(label(LEGEND - 6, bottom + 9, "0 %", anchor="end"))
    drawn.append(label(LEGEND + 166, bottom + 9, "100 % of the true class", anchor="start"))
    right = 100 * float((labels == predicted).double().mean())
    text = (
        f"{len(taught)} classes of {len(set(taught))} sessions; "
        f"{right:.1f} % of {len(labels)} test images are on its diagonal"
    )
    return svg("Confusion matrix", text, *drawn, height=bottom + 20)


def _shortened(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
