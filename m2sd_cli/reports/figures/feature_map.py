"""Test features and class means in the plane in which the features vary most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from m2sd_cli.reports.figures.svg import LeftOutError, Plot, legend, marker, round_steps, svg

MOST_POINTS = 900  # images in the figure, chosen at equal distances
KINDS = ("base classes", "earlier sessions", "last session")


def principal_plane(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the plane of the two largest variances of features (N, D) by PCA.

    Returns:
        The mean (D,), the two axes (D, 2) float64, and the share of the variance along each axis (2,), 0 if nothing
        varies. The entry of largest size in an axis is positive.
    """
    wide = features.double()
    centre = wide.mean(dim=0)
    values, vectors = torch.linalg.eigh((wide - centre).T @ (wide - centre))
    order = values.argsort(descending=True)[:2]
    axes = vectors[:, order]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    share = values[order].clamp_min(0) / values.clamp_min(0).sum().clamp_min(torch.finfo(torch.float64).tiny)
    return centre, axes * torch.where(largest < 0, -1.0, 1.0), share


def draw_feature_map(features: Tensor, labels: Tensor, means: Tensor, taught: Sequence[int]) -> str:
    """Draw test images as small marks and class means as large ones, by PCA of the features.

    Args:
        features: (N, D) of test images; each is brought to length 1, since directions are compared.
        labels: (N,) class in [0, C).
        means: (C, D), likewise.
        taught: the session of each of the C classes.

    Raises:
        LeftOutError: there are fewer than two features, or their width is 1.
    """
    if len(features) < 2 or features.shape[1] < 2:
        raise LeftOutError("a plane needs two test images at least, and features of two numbers")
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    centre, axes, share = principal_plane(unit)
    chosen = torch.arange(0, len(unit), -(-len(unit) // MOST_POINTS))
    points = (unit[chosen] - centre) @ axes
    rows = (torch.nn.functional.normalize(means.double(), dim=1) - centre) @ axes
    every = torch.cat([points, rows])
    steps = [round_steps(float(every[:, axis].min()), float(every[:, axis].max()), 5) for axis in (0, 1)]
    plot = Plot(x=steps[0], y=steps[1])
    last = max(taught)

    def kind(session: int) -> int:
        return 0 if session == 0 else 2 if session == last else 1

    percent = (100 * share).tolist()
    parts = [
        plot.axes(f"first axis, {percent[0]:.0f} % of the variance", f"second, {percent[1]:.0f} %", x_ticks=steps[0])
    ]
    small = [
        (kind(taught[label]), point) for label, point in zip(labels[chosen].tolist(), points.tolist(), strict=True)
    ]
    for each in range(len(KINDS)):  # base classes first, so that they lie below the others
        marks = "".join(marker(*plot.at(*point), each, 1.5) for found, point in small if found == each)
        parts.append(f'<g class="dot">{marks}</g>')
    large = sorted((kind(session), point) for session, point in zip(taught, rows.tolist(), strict=True))
    parts += (marker(*plot.at(*point), each, 4.2) for each, point in large)
    there = sorted({each for each, _ in large})
    parts.append(legend([(marker(0, 0, each), KINDS[each]) for each in there]))
    text = f"{len(chosen)} of {len(unit)} test images and {len(rows)} class means, by direction"
    return svg("Features", text, *parts)
