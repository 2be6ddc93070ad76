"""Curves of a training: loss and its terms, accuracies, learning rate."""

import math
from collections.abc import Mapping, Sequence

from m2sd_cli.reports.figures.svg import (
    LEGEND_LINE,
    LINES,
    LeftOutError,
    Plot,
    legend,
    legend_lines,
    marker,
    polyline,
    round_steps,
    sample_line,
    svg,
    tick,
)

Series = Mapping[str, Sequence[float | None]]  # by the name of a curve, a value an epoch; None if it was not measured
AREA, BELOW = 126, 50  # units: height of a plot, and of the axis below it
MOST_MARKERS = 12  # on a curve


def draw_training(title: str, losses: Series, accuracies: Series, rates: Series) -> str:
    """Draw the curves of a stage below one another, by epoch.

    Args:
        title: of the stage.
        losses: the loss and its terms, on a logarithmic scale if they differ much.
        accuracies: in per cent.
        rates: learning rates.

    Raises:
        LeftOutError: there is no epoch.
    """
    drawn, top = [], 8.0
    for series, name in ((losses, "loss"), (accuracies, "accuracy, %"), (rates, "learning rate")):
        measured = {key: each for key, each in series.items() if any(value is not None for value in each)}
        if measured:
            drawn.append(_draw_panel(measured, name, name == "loss", top))
            top += AREA + BELOW + LEGEND_LINE * len(legend_lines(_entries(measured)))
    if not drawn:
        raise LeftOutError("this stage trained for no epoch")
    epochs = max(len(each) for each in losses.values())
    return svg(title, f"curves over {epochs} epochs: {', '.join(losses)}", *drawn, height=top)


def _entries(series: Series) -> list[tuple[str, str]]:
    return [(sample_line(style), name) for style, name in enumerate(series)]


def _draw_panel(series: Series, name: str, wide: bool, top: float) -> str:
    """Draw the curves of one unit.

    Args:
        series: of at least one value.
        name: of the axis.
        wide: take a logarithmic scale if the positive values span more than a power of ten, and none is negative.
        top: the y at which the panel begins, in units.
    """
    values = [value for each in series.values() for value in each if value is not None]
    positive = [value for value in values if value > 0]
    logarithmic = wide and bool(positive) and min(values) >= 0 and max(positive) > 10 * min(positive)

    def height(value: float) -> float:
        return math.log10(value) if logarithmic else value

    shown = positive if logarithmic else values
    low, high = height(min(shown)), height(max(shown))
    steps = _decades(low, high) if logarithmic else round_steps(low, high, 4)
    epochs = max(len(each) for each in series.values())
    plot = Plot(x=[1, max(epochs, 2)], y=steps, top=top, bottom=top + AREA)
    ticks = sorted({1.0, *(each for each in round_steps(1, epochs) if 1 <= each <= epochs and each == round(each))})
    parts = [plot.axes("epoch", name, ticks, [tick(10**each) for each in steps] if logarithmic else None)]
    for style, each in enumerate(series.values()):
        known = [(epoch, value) for epoch, value in enumerate(each, start=1) if value is not None]
        places = [plot.at(epoch, height(value)) for epoch, value in known if value > 0 or not logarithmic]
        parts.append(polyline(places, f"line l{style % LINES}"))
        parts += (marker(*place, style, 2.6) for place in places[:: max(1, len(places) // MOST_MARKERS)])
    return "".join(parts) + legend(_entries(series), y=top + AREA + 48)


def _decades(low: float, high: float) -> list[float]:
    return [float(each) for each in range(math.floor(low), max(math.ceil(high), math.floor(low) + 1) + 1)]
