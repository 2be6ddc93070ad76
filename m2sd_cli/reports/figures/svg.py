"""The elements of a figure: text that is escaped, axes with round numbers, lines, legends.

Colours and fonts are classes of figures.css. A page has this style sheet once for all its figures; `standalone` puts it
into the file of a single figure.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Final

from m2sd_cli.reading import printable

CSS: Final = Path(__file__).with_name("figures.css")
WIDTH, HEIGHT = 420, 280  # units of a figure; about a pixel each on a phone
LEGEND_LINE = 15  # units
LINES = 7  # styles of lines in figures.css, in colour, dash and marker


class LeftOutError(Exception):
    """A figure that the run cannot make; the reason is the message, without a full stop."""


def words(text: str) -> str:
    """Escape a text for SVG and HTML; characters that neither may have are made visible."""
    return escape(printable(text), quote=True)


def number(value: float) -> str:
    """Format a coordinate with at most two digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"


def label(x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle", turn: float = 0) -> str:
    """Write a text.

    Args:
        x, y: of the anchor on the base line.
        text: unescaped.
        kind: a class of figures.css.
        anchor: start, middle or end.
        turn: degrees, clockwise.
    """
    turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
    place = f'x="{number(x)}" y="{number(y)}"'
    return f'<text class="{kind}" {place} text-anchor="{anchor}"{turned}>{words(text)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    """Draw a straight line."""
    return f'<path class="{kind}" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"/>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Draw a rectangle."""
    size = f'width="{number(max(width, 0))}" height="{number(max(height, 0))}"'
    return f'<rect class="{kind}" x="{number(x)}" y="{number(y)}" {size}/>'


def marker(x: float, y: float, style: int, size: float = 3.5) -> str:
    """Draw the marker of a style of lines: a disc, a square, a diamond or a triangle, full or hollow."""
    kind, shape = f"mark m{style % LINES}", style % LINES % 4
    left, right, top, bottom = (number(each) for each in (x - size, x + size, y - size, y + size))
    if shape == 0:
        return f'<circle class="{kind}" cx="{number(x)}" cy="{number(y)}" r="{number(size)}"/>'
    if shape == 1:
        return f'<path class="{kind}" d="M{left} {top}H{right}V{bottom}H{left}Z"/>'
    tip = f"M{number(x)} {number(y - 1.3 * size)}"
    if shape == 2:
        low = number(y + 1.3 * size)
        return f'<path class="{kind}" d="{tip}L{right} {number(y)}L{number(x)} {low}L{left} {number(y)}Z"/>'
    return f'<path class="{kind}" d="{tip}L{right} {bottom}H{left}Z"/>'


def polyline(points: Iterable[tuple[float, float]], kind: str) -> str:
    """Draw a line through points."""
    d = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return f'<path class="{kind}" d="M{d}"/>' if d else ""


def round_steps(low: float, high: float, most: int = 6) -> list[float]:
    """List round numbers at equal distances (1, 2 or 5 times a power of ten) that enclose a range.

    Args:
        low, high: the range; a range of one number is widened on both sides.
        most: intervals.
    """
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [each * step for each in range(first, last + 1)]


def tick(value: float) -> str:
    """Format the number at a tick."""
    return f"{value:.4g}"


@dataclass(frozen=True)
class Plot:
    """The area of a plot in its figure, and the values at its edges."""

    x: Sequence[float]  # ticks; the first and the last are at the edges
    y: Sequence[float]
    left: float = 54
    top: float = 12
    right: float = WIDTH - 10
    bottom: float = HEIGHT - 70

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place a point; a point beyond an edge is moved to the edge."""
        return (
            self.left + (self.right - self.left) * _share(x, self.x),
            self.bottom + (self.top - self.bottom) * _share(y, self.y),
        )

    def axes(
        self,
        x_title: str,
        y_title: str,
        x_ticks: Sequence[float] | None = None,
        y_words: Sequence[str] | None = None,
    ) -> str:
        """Draw the grid, the numbers beside it and the titles of both axes.

        Args:
            x_title, y_title: of the axes.
            x_ticks: other numbers to write at the x axis.
            y_words: texts to write at the ticks of the y axis instead of their numbers.
        """
        parts = []
        for value, text in zip(self.y, y_words or map(tick, self.y), strict=False):
            _, y = self.at(self.x[0], value)
            parts += [rule(self.left, y, self.right, y), label(self.left - 5, y + 4, text, anchor="end")]
        for value in self.x if x_ticks is None else x_ticks:
            x, _ = self.at(value, self.y[0])
            parts += [rule(x, self.bottom, x, self.bottom + 4, "axis"), label(x, self.bottom + 16, tick(value))]
        middle = (self.left + self.right) / 2
        parts.append(rule(self.left, self.bottom, self.right, self.bottom, "axis"))
        parts.append(label(middle, self.bottom + 31, x_title, "name"))
        parts.append(label(11, (self.top + self.bottom) / 2, y_title, "name", turn=-90))
        return "".join(parts)


def _share(value: float, ticks: Sequence[float]) -> float:
    span = ticks[-1] - ticks[0]
    return min(max((value - ticks[0]) / span, 0.0), 1.0) if span else 0.5


def legend(entries: Sequence[tuple[str, str]], y: float = HEIGHT - 23) -> str:
    """Write a legend in as many lines as its names need, from the top downwards.

    Args:
        entries: a sample, drawn around (0, 0) and 24 wide, and its name.
        y: the base line of the first line.
    """
    return "".join(
        f'<g transform="translate({number(x + 12)} {number(y + LEGEND_LINE * row - 4)})">{sample}</g>'
        + label(x + 29, y + LEGEND_LINE * row, name, "key", "start")
        for row, line in enumerate(legend_lines(entries))
        for sample, name, x in line
    )


def legend_lines(entries: Sequence[tuple[str, str]]) -> list[list[tuple[str, str, float]]]:
    """Break the entries of a legend into lines; each entry has the x at which it begins."""
    lines: list[list[tuple[str, str, float]]] = [[]]
    x = left = 12.0
    for sample, name in entries:
        width = 32 + 6 * len(printable(name)) + 10
        if lines[-1] and x + width > WIDTH:
            lines.append([])
            x = left
        lines[-1].append((sample, name, x))
        x += width
    return lines


def sample_line(style: int) -> str:
    """Draw the sample of a line with its marker, for a legend."""
    return rule(-12, 0, 12, 0, f"line l{style % LINES}") + marker(0, 0, style)


def sample_box(kind: str) -> str:
    """Draw the sample of an area, for a legend."""
    return box(-8, -5, 16, 10, kind)


def svg(title: str, text: str, *parts: str, height: float = HEIGHT) -> str:
    """Compose a figure of its elements.

    Args:
        title: of the figure.
        text: the description for readers who cannot see the figure.
        parts: elements.
        height: units.
    """
    name = f'role="img" aria-label="{words(title)}. {words(text)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 {WIDTH} {number(height)}" {name}>'
    return f"{head}<title>{words(title)}</title><desc>{words(text)}</desc>{''.join(parts)}</svg>"


def standalone(figure: str) -> str:
    """Make the content of a file from a figure: with its style, on white, of a size in pixels."""
    light, rules = _style()
    style = re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: light[match[1]], rules)
    height = re.search(r'viewBox="0 0 \d+ ([\d.]+)"', figure)
    assert height is not None, "svg() writes it"
    head, _, rest = figure.partition(">")
    size = f'width="{2 * WIDTH}" height="{number(2 * float(height[1]))}"'
    paper = f'<rect width="{WIDTH}" height="{height[1]}" fill="{light["paper"]}"/>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head} {size}><style>{style}</style>{paper}{rest}\n'


@cache
def _style() -> tuple[dict[str, str], str]:
    """Read the colours of the light scheme, and the rules."""
    content = CSS.read_text(encoding="utf-8")
    first, _, rest = content.partition("/* dark */")
    _, _, rules = rest.partition("/* rules */")
    return dict(re.findall(r"--([a-z0-9-]+):\s*([^;]+);", first)), rules.strip()
