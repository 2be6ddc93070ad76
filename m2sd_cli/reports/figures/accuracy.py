"""Accuracy over sessions: overall, base, novel and HM, beside published methods."""

from collections.abc import Sequence

from m2sd_cli.reports.figures.svg import (
    HEIGHT,
    Plot,
    box,
    label,
    legend,
    marker,
    polyline,
    round_steps,
    rule,
    sample_line,
    svg,
)
from m2sd_cli.reports.metrics import Figures
from m2sd_cli.reports.published import Published, Row

FIGURES = {"overall": "overall", "base": "base classes", "novel": "novel classes", "harmonic": "HM"}


def draw_accuracy(figures: Figures, published: Sequence[Published] = ()) -> str:
    """Draw the accuracies of every session, in per cent.

    Published rows are thin lines, dotted where only the first and the last figure were published. They are drawn only
    where they have as many sessions.
    """
    sessions = figures.sessions
    last = max(len(sessions) - 1, 1)
    beside = [each.row for each in published if each.row.sessions is None or len(each.row.sessions) == len(sessions)]
    lines = [(row.sessions is not None, _points(row, last)) for row in beside]
    values = [value for each in sessions for name in FIGURES if (value := getattr(each, name)) is not None]
    values += [value for _, points in lines for _, value in points]
    plot = Plot(x=[0, last], y=round_steps(min([*values, 100]), max([*values, 0])))
    step = max(1, -(-len(sessions) // 12))
    parts = [plot.axes("session", "accuracy, %", x_ticks=range(0, last + 1, step))]
    for whole, points in lines:
        parts.append(polyline((plot.at(*point) for point in points), "thin" if whole else "dotted"))
    entries = []
    for style, (name, title) in enumerate(FIGURES.items()):
        found = [(each.session, value) for each in sessions if (value := getattr(each, name)) is not None]
        if found:
            places = [plot.at(x, y) for x, y in found]
            parts += [polyline(places, f"line l{style}"), *(marker(*place, style) for place in places)]
            entries.append((sample_line(style), title))
    if any(points for _, points in lines):
        entries.append((rule(-12, 0, 12, 0, "thin"), "published"))
    parts.append(legend(entries))
    overall = sessions[-1].overall
    text = f"{len(sessions)} sessions" + ("" if overall is None else f", overall {overall:.1f} % after the last")
    return svg("Accuracy over sessions", text, *parts)


def _points(row: Row, last: int) -> list[tuple[int, float]]:
    """List the sessions and accuracies that are known of a published method; none of a single session."""
    known = enumerate(row.sessions) if row.sessions else ((0, row.base), (last, row.last))
    points = [(session, float(value)) for session, value in known if value is not None]
    return points if len(points) > 1 else []


def draw_last_session(figures: Figures) -> str:
    """Draw base and novel accuracy and HM of the last session as bars, in per cent."""
    last = figures.sessions[-1]
    bars = [("overall", last.overall), ("base", last.base), ("novel", last.novel), ("HM", last.harmonic)]
    plot = Plot(x=[0, len(bars)], y=round_steps(0, 100, 5), bottom=HEIGHT - 40)
    parts = [plot.axes("", "accuracy, %", x_ticks=())]
    for place, (name, value) in enumerate(bars):
        left, zero = plot.at(place + 0.2, 0)
        right, top = plot.at(place + 0.8, value or 0)
        middle = (left + right) / 2
        style = (0, 0, 1, 2)[place]
        if value is not None:
            parts.append(box(left, top, right - left, zero - top, f"bar{style}"))
        parts.append(label(middle, top - 5, "-" if value is None else f"{value:.1f}", "value"))
        parts.append(label(middle, zero + 16, name, "name"))
    known = ", ".join(f"{name} {value:.1f} %" for name, value in bars if value is not None)
    return svg(f"Session {last.session}", known, *parts)
