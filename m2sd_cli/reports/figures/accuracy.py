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
    known = [(each, _points(each.row, last)) for each in published]
    beside = [(each, points) for each, points in known if points and points[-1][0] == len(sessions) - 1]
    values = [value for each in sessions for name in FIGURES if (value := getattr(each, name)) is not None]
    values += [value for _, points in beside for _, value in points]
    plot = Plot(x=[0, last], y=round_steps(min([*values, 100]), max([*values, 0])))
    step = max(1, -(-len(sessions) // 12))
    parts = [plot.axes("session", "accuracy, %", x_ticks=range(0, last + 1, step))]
    for each, points in beside:
        parts.append(polyline((plot.at(x, y) for x, y in points), "thin" if each.row.sessions else "dotted"))
    entries = []
    for style, (name, title) in enumerate(FIGURES.items()):
        found = [(each.session, value) for each in sessions if (value := getattr(each, name)) is not None]
        if found:
            places = [plot.at(x, y) for x, y in found]
            parts += [polyline(places, f"line l{style}"), *(marker(*place, style) for place in places)]
            entries.append((sample_line(style), title))
    if beside:
        entries.append((rule(-12, 0, 12, 0, "thin"), "published"))
    parts.append(legend(entries))
    overall = sessions[-1].overall
    text = f"{len(sessions)} sessions" + ("" if overall is None else f", overall {overall:.1f} % after the last")
    return svg("Accuracy over sessions", text, *parts)


def _points(row: Row, last: int) -> list[tuple[int, float]]:
    """Return the published accuracies of a row by session: of all sessions, or of the first and the last one."""
    if row.sessions is not None:
        return list(enumerate(map(float, row.sessions)))
    if row.base is None or row.last is None:
        return []
    return [(0, float(row.base)), (last, float(row.last))]


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
