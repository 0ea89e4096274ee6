"""Figures as inline SVG, drawn by hand: light, sharp at any size, and coloured by the page's CSS
variables, so that one drawing serves light, dark and print.

A `Plot` maps data to a fixed box of FIGURE_WIDTH x FIGURE_HEIGHT user units, about the CSS pixels
of a phone's column, where text of 11 units stays readable. Everything returned is a string of SVG
or HTML; nothing is read or written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from pipeline.core.ensemble.scores import excludes_zero

# the whole drawing, and its margins around the box of data, in user units
FIGURE_WIDTH = 330
FIGURE_HEIGHT = 250
LEFT = 44
RIGHT = 10
TOP = 12
BOTTOM = 36

POINTS = 400  # corners a drawn curve keeps at most: more than there are pixels


def coordinate(value: float) -> str:
    """A coordinate, short: `12`, `12.3`."""
    return f"{value:.1f}".removesuffix(".0")


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many.

    >>> nice_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    # the round step nearest to the wanted one, as a ratio
    wanted = (high - low) / about
    power = 10 ** math.floor(math.log10(wanted))
    sizes = [factor * power for factor in (1, 2, 2.5, 5, 10)]
    step = min(sizes, key=lambda size: abs(math.log(size / wanted)))
    # 1e-9: an end that is a tick up to rounding is one
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def tick_text(value: float) -> str:
    """0.25 -> `.25`, 12000 -> `12,000`: the shortest exact form."""
    if value >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.6g}"
    return "." + text[2:] if text.startswith("0.") else text


@dataclass
class Plot:
    """One pair of axes. x, y: the data ranges; root: draw y on a square-root scale."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    root: bool = False
    marks: list[str] = field(default_factory=list)

    def at_x(self, value):
        """Data to user units, left to right."""
        low, high = self.x
        return LEFT + (np.asarray(value, float) - low) / (high - low) * (
            FIGURE_WIDTH - LEFT - RIGHT
        )

    def at_y(self, value):
        """Data to user units, which grow downward."""
        bend = np.sqrt if self.root else np.asarray
        low, high, value = (bend(np.asarray(v, float)) for v in (*self.y, value))
        return (
            FIGURE_HEIGHT - BOTTOM - (value - low) / (high - low) * (FIGURE_HEIGHT - TOP - BOTTOM)
        )

    def path(self, x, y) -> str:
        """`M..L..` through the points, those that are NaN left out."""
        # one decimal is a tenth of a pixel on a phone, and keeps the page small
        corners = []
        for a, b in zip(self.at_x(x), self.at_y(y)):
            if np.isfinite(a) and np.isfinite(b):
                corners.append(f"{coordinate(a)} {coordinate(b)}")
        return "M" + "L".join(corners) if corners else ""

    def line(self, x, y, style: str, title: str = "") -> None:
        """A curve; `style` is a class of the page: c-ce, c-aucm, c-final, ... with thin, dashed."""
        self.add(f'<path class="line {style}" d="{self.path(x, y)}"/>', title)

    def area(self, x, low, high, style: str, title: str = "") -> None:
        """The band between two curves."""
        finite = np.isfinite(low) & np.isfinite(high)
        x, low, high = (np.asarray(values, float)[finite] for values in (x, low, high))
        outline = self.path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]))
        self.add(f'<path class="area {style}" d="{outline}Z"/>', title)

    def dot(self, x: float, y: float, style: str, title: str = "") -> None:
        """A point."""
        center = f'cx="{coordinate(self.at_x(x))}" cy="{coordinate(self.at_y(y))}"'
        self.add(f'<circle class="dot {style}" {center} r="3"/>', title)

    def add(self, mark: str, title: str = "") -> None:
        """One SVG element `<name .../>`, with a tooltip."""
        # a <title> inside the element is what browsers show as its tooltip
        if title:
            name = mark[1 : mark.index(" ")]
            mark = mark.replace("/>", f"><title>{escape(title)}</title></{name}>")
        self.marks.append(mark)

    def axes(self, x_ticks: Sequence[float] | None, y_ticks: Sequence[float] | None) -> list[str]:
        """Grid lines, tick labels, and the names of the axes."""
        bottom = FIGURE_HEIGHT - BOTTOM
        right = FIGURE_WIDTH - RIGHT
        elements = []
        for value in nice_ticks(*self.y) if y_ticks is None else y_ticks:
            y = self.at_y(value)
            elements.append(
                f'<path class="grid" d="M{LEFT} {coordinate(y)}H{right}"/>'
                f'<text x="{LEFT - 5}" y="{coordinate(y + 3.5)}" text-anchor="end">'
                f"{tick_text(value)}</text>"
            )
        for value in nice_ticks(*self.x) if x_ticks is None else x_ticks:
            x = coordinate(self.at_x(value))
            elements.append(
                f'<path class="grid" d="M{x} {TOP}V{bottom}"/>'
                f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{tick_text(value)}</text>'
            )
        x_place = f'x="{(LEFT + right) / 2}" y="{FIGURE_HEIGHT - 5}"'
        y_place = f'transform="translate(11 {(TOP + bottom) / 2}) rotate(-90)"'
        elements.append(
            f'<text {x_place} text-anchor="middle">{escape(self.x_label)}</text>'
            f'<text {y_place} text-anchor="middle">{escape(self.y_label)}</text>'
        )
        return elements

    def svg(
        self,
        described: str,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        clip: str = "",
    ) -> str:
        """The whole drawing; `described` is read aloud in its place. clip: an id, where curves
        leave the box."""
        marks = "".join(self.marks)
        clip_path = ""
        if clip:
            size = f'width="{FIGURE_WIDTH - LEFT - RIGHT}" height="{FIGURE_HEIGHT - TOP - BOTTOM}"'
            box = f'<rect x="{LEFT}" y="{TOP}" {size}/>'
            clip_path = f'<clipPath id="{clip}">{box}</clipPath>'
            marks = f'<g clip-path="url(#{clip})">{marks}</g>'
        axes = "".join(self.axes(x_ticks, y_ticks))
        return (
            f'<svg class="plot" viewBox="0 0 {FIGURE_WIDTH} {FIGURE_HEIGHT}" role="img" '
            f'aria-label="{escape(described)}">{clip_path}{axes}{marks}</svg>'
        )


def thinned_curve(
    x: np.ndarray, y: np.ndarray, points: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """At most about so many of a monotone curve's points, evenly spaced along it; both ends are
    kept."""
    # a curve may have a corner for every row, the drawing has some hundred pixels
    if len(x) <= points:
        return x, y
    last = len(x) - 1
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    nearest = np.searchsorted(along, np.linspace(0, along[-1], points)).clip(0, last)
    kept = np.unique([0, *nearest, last])
    return x[kept], y[kept]


def step_outline(edges: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A histogram's outline as points: x, y (2 n,) of edges (n + 1,) and heights (n,)."""
    return np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)


def interval_bar(
    value: float,
    low: float,
    high: float,
    limits: tuple[float, float],
    style: str = "",
    mark: float | None = None,
    zero: float | None = None,
) -> str:
    """A dot with its interval, as wide as its table cell; mark: a hollow diamond, zero: a reference
    line."""

    def place(x: float) -> str:
        # 2 % free on both sides, so that a dot at an end is whole
        return f"{np.clip((x - limits[0]) / (limits[1] - limits[0]) * 96 + 2, 0, 100):.1f}%"

    parts = []
    if zero is not None:
        parts.append(f'<line class="zero" x1="{place(zero)}" x2="{place(zero)}" y1="0" y2="20"/>')
    if np.isfinite([value, low, high]).all():
        parts.append(
            f'<line class="line {style}" x1="{place(low)}" x2="{place(high)}" y1="10" y2="10"/>'
            f'<circle class="dot {style}" cx="{place(value)}" cy="10" r="3.5"/>'
        )
    if mark is not None:
        diamond = '<path class="theirs" d="M0 5L5 10L0 15L-5 10Z"/>'
        parts.append(f'<svg x="{place(mark)}" overflow="visible">{diamond}</svg>')
    return f'<svg class="bar" height="20" aria-hidden="true">{"".join(parts)}</svg>'


def difference_bar(row: dict, limits: tuple[float, float]) -> str:
    """A paired difference (a row of `difference_row`) with its interval and the line of 0: coloured
    where the interval excludes 0, else gray."""
    style = "c-final" if excludes_zero(row) else "c-soft"
    return interval_bar(row["difference"], row["low"], row["high"], limits, style, zero=0)


def limits_of(values: Sequence[float], step: float = 0.05) -> tuple[float, float]:
    """The range of the finite values, widened to multiples of `step`."""
    finite = [value for value in values if value is not None and np.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low = math.floor(min(finite) / step) * step
    high = math.ceil(max(finite) / step) * step
    return (low, high) if high > low else (low - step, high + step)
