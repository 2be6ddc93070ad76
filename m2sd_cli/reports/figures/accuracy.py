"""Accuracy over sessions: overall, base, novel and HM, beside published methods."""

from collections.abc import Mapping, Sequence

from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.figures.svg import (
    HEIGHT,
    LeftOutError,
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


MOST_MARKERS = 40  # of a curve; more would hide it
LATER = {"top5": "top-5", "forgetting": "forgetting"}


def draw_accuracy(runs: Sequence[Figures], published: Sequence[Published] = ()) -> str:
    """Draw the accuracies of every session, in per cent.

    Published rows are thin lines, dotted if only the first and the last figure are known. A row with another number of
    sessions is not drawn.

    Args:
        runs: one, or several with the same sessions: then means, with bands of one deviation on either side.
        published: of the same sessions.

    Raises:
        LeftOutError: there is one session only, and no curve.
    """
    if len(runs[0].sessions) < 2:
        raise LeftOutError("no session was taught after session 0")
    last = max(len(runs[0].sessions) - 1, 1)
    beside = [each.row for each in drawn_beside(published, len(runs[0].sessions))]
    lines = [(row.sessions is not None, _points(row, last)) for row in beside]
    overall = _curve(runs, "overall")
    text = "" if not overall or overall[-1][0] != last else f", overall {overall[-1][1]:.1f} % after the last"
    return _draw("Accuracy over sessions", "accuracy, %", FIGURES, runs, lines, text)


def drawn_beside(published: Sequence[Published], sessions: int) -> list[Published]:
    """Choose the published rows that `draw_accuracy` draws: those of as many sessions, of which a line is known."""
    return [
        each
        for each in published
        if each.row.sessions is None or len(each.row.sessions) == sessions
        if _points(each.row, max(sessions - 1, 1))
    ]


def draw_forgetting(runs: Sequence[Figures]) -> str:
    """Draw top-5 accuracy in per cent and forgetting in points, as `draw_accuracy` does.

    Raises:
        LeftOutError: no session was taught after session 0, so that nothing could be forgotten.
    """
    if len(runs[0].sessions) < 2:
        raise LeftOutError("no session was taught after session 0")
    return _draw("Top-5 and forgetting over sessions", "% and points", LATER, runs)


def _draw(
    title: str,
    unit: str,
    names: Mapping[str, str],
    runs: Sequence[Figures],
    lines: Sequence[tuple[bool, list[tuple[int, float]]]] = (),
    text: str = "",
) -> str:
    """Draw figures over the sessions.

    Args:
        title: of the figure.
        unit: of the y axis.
        names: of the curves, by the figure of a session.
        runs: with the same sessions.
        lines: published points; each with True if they are of all sessions.
        text: the end of the description.
    """
    last = max(len(runs[0].sessions) - 1, 1)
    curves = {name: _curve(runs, name) for name in names}
    values = [value for points in curves.values() for _, *three in points for value in three]
    values += [value for _, known in lines for _, value in known]
    steps = round_steps(min([*values, 100]), max([*values, 0]))
    plot = Plot(x=[0, last], y=[each for each in steps if each <= 100])  # room is left above equal values
    step = max(1, -(-len(runs[0].sessions) // 12))
    apart = max(1, -(-len(runs[0].sessions) // MOST_MARKERS))
    parts = [plot.axes("session", unit, x_ticks=range(0, last + 1, step))]
    for whole, known in lines:
        parts.append(polyline((plot.at(*point) for point in known), "thin" if whole else "dotted"))
    entries = []
    for style, (name, named) in enumerate(names.items()):
        points = curves[name]
        if not points:
            continue
        if len(runs) > 1:
            upper = [plot.at(x, high) for x, _, _, high in points]
            lower = [plot.at(x, low) for x, _, low, _ in points]
            parts.append(polyline([*upper, *reversed(lower)], f"band m{style}"))
        places = [plot.at(x, mean) for x, mean, _, _ in points]
        parts += [polyline(places, f"line l{style}"), *(marker(*place, style) for place in places[::apart])]
        entries.append((sample_line(style), named))
    if lines:
        entries.append((rule(-12, 0, 12, 0, "thin"), "published"))
    parts.append(legend(entries))
    several = f" of {len(runs)} runs, mean and deviation (n - 1)" if len(runs) > 1 else ""
    return svg(title, f"{len(runs[0].sessions)} sessions{several}{text}", *parts)


def _curve(runs: Sequence[Figures], name: str) -> list[tuple[int, float, float, float]]:
    """List session, mean, and mean less and plus the deviation, for the sessions in which every run has the figure."""
    points = []
    for same in zip(*(each.sessions for each in runs), strict=True):
        known = [value for each in same if (value := getattr(each, name)) is not None]
        if len(known) == len(runs):
            figure = MeanAndDeviation.of(known)
            deviation = figure.deviation or 0.0
            points.append((same[0].session, figure.mean, figure.mean - deviation, figure.mean + deviation))
    return points


def _points(row: Row, last: int) -> list[tuple[int, float]]:
    """List the sessions and known accuracies of a published method; none if only one is known."""
    known = enumerate(row.sessions) if row.sessions else ((0, row.base), (last, row.last))
    points = [(session, float(value)) for session, value in known if value is not None]
    return points if len(points) > 1 else []


def draw_last_session(figures: Figures) -> str:
    """Draw overall, base and novel accuracy and HM of the last session as bars, in per cent."""
    last = figures.sessions[-1]
    bars = [("overall", last.overall), ("base", last.base), ("novel", last.novel), ("HM", last.harmonic)]
    plot = Plot(x=[0, len(bars)], y=round_steps(0, 100, 5), bottom=HEIGHT - 40)
    parts = [plot.axes("", "accuracy, %", x_ticks=())]
    for place, (name, value) in enumerate(bars):
        left, zero = plot.at(place + 0.2, 0)
        right, top = plot.at(place + 0.8, value or 0)
        middle = (left + right) / 2
        if value is not None:
            parts.append(box(left, top, right - left, zero - top, f"bar{place}"))  # in the colour of its curve
        parts.append(label(middle, top - 5, "-" if value is None else f"{value:.1f}", "value"))
        parts.append(label(middle, zero + 16, name, "name"))
    known = ", ".join(f"{name} {value:.1f} %" for name, value in bars if value is not None)
    return svg(f"Session {last.session}", known, *parts)
