"""Confusion matrix as a heat map, its classes in the order in which they were taught."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from m2sd_cli.reports.figures.svg import WIDTH, box, label, number, rule, svg

MOST_CELLS = 250  # a side; of more classes neighbours share a cell
LEVELS = 10  # of the shade
LEFT, TOP, SIDE = 46, 28, 350


def confusion_shares(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Compute the share of the test images of each true class (rows) that each answer (columns) got.

    Args:
        labels: (N,) true class in [0, C).
        predicted: (N,) answer in [0, C).
        classes: C, of which neighbours share a cell if they are more than MOST_CELLS.

    Returns:
        (K, K) float64 with K <= MOST_CELLS; a row without an image is 0.
    """
    shared = -(-classes // MOST_CELLS)
    side = -(-classes // shared)
    counts = torch.bincount(labels // shared * side + predicted // shared, minlength=side * side).view(side, side)
    return counts.double() / counts.sum(dim=1, keepdim=True).clamp_min(1)


def draw_confusion(labels: Tensor, predicted: Tensor, taught: Sequence[int]) -> str:
    """Draw the matrix; the darker a cell, the larger the share of the row's test images.

    Args:
        labels: (N,) true class in [0, C), at least one.
        predicted: (N,) answer in [0, C).
        taught: the session of each of the C classes, ascending.
    """
    shares = confusion_shares(labels, predicted, len(taught))
    cell = SIDE / len(shares)
    parts = []
    levels = (shares * LEVELS).ceil().long()
    for level in range(1, LEVELS + 1):
        cells = (levels == level).nonzero().tolist()
        d = "".join(f"M{column} {row}h1v1h-1z" for row, column in cells)
        if d:
            parts.append(f'<path class="heat" fill-opacity="{number(0.04 + 0.96 * level / LEVELS)}" d="{d}"/>')
    place = f"translate({LEFT} {TOP}) scale({cell:.4f})"
    drawn = [f'<g transform="{place}">{"".join(parts)}</g>', box(LEFT, TOP, SIDE, SIDE, "frame")]
    begin, free = 0, 0.0
    for session, group in groupby(taught):
        end = begin + len(list(group))
        first, after = (SIDE * each / len(taught) for each in (begin, end))
        if begin:
            drawn += [
                rule(LEFT + first, TOP, LEFT + first, TOP + SIDE, "frame"),
                rule(LEFT, TOP + first, LEFT + SIDE, TOP + first, "frame"),
            ]
        middle = (first + after) / 2
        if middle >= free:  # narrow sessions leave no room for all their numbers
            drawn.append(label(LEFT + middle, TOP - 5, str(session)))
            drawn.append(label(LEFT - 5, TOP + middle + 4, str(session), anchor="end"))
            free = middle + 13
        begin = end
    drawn.append(label(LEFT + SIDE / 2, 11, "answer, by session", "name"))
    drawn.append(label(11, TOP + SIDE / 2, "true class, by session", "name", turn=-90))
    bottom = TOP + SIDE + 12
    for level in range(LEVELS):
        opacity = f'fill-opacity="{number(0.04 + 0.96 * (level + 1) / LEVELS)}"'
        drawn.append(
            f'<rect class="heat" {opacity} x="{WIDTH / 2 - 80 + 16 * level:.0f}" y="{bottom}" width="16" height="9"/>'
        )
    drawn.append(label(WIDTH / 2 - 86, bottom + 9, "0 %", anchor="end"))
    drawn.append(label(WIDTH / 2 + 86, bottom + 9, "100 % of the true class", anchor="start"))
    right = 100 * float((labels == predicted).double().mean())
    text = (
        f"{len(taught)} classes of {len(set(taught))} sessions; "
        f"{right:.1f} % of {len(labels)} test images are on its diagonal"
    )
    return svg("Confusion matrix", text, *drawn, height=bottom + 20)
