"""A few charts as inline SVG, drawn small enough that their text can be read on a phone.

Colours and weights are classes; the page's style sheet knows them for light and dark. Coordinates
are in the view box, `WIDTH` wide; a chart takes the width of whatever holds it.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH = 440
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 22, 34
"""Margins around the plotted area, for the axes' text."""
LINE_HEIGHT = 38
"""Of a row in dot plots and bars: a line of text and what it names."""
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line and its classes."""

    points: Sequence[Point]
    classes: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a dot plot: values, their mean and an interval around it."""

    name: str
    values: Sequence[tuple[str, float]]
    mean: float | None
    half_width: float | None
    classes: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar on its track; `limit` is the track's end."""

    name: str
    value: float
    limit: float
    text: str
    classes: str


def escape(text: object) -> str:
    return html.escape(str(text))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    # 2.5 would stand between steps or chunks, and be written as a whole number.
    factors = (1, 2, 5, 10) if power == 1 else (1, 2, 2.5, 5, 10)
    steps = [power * factor for factor in factors]
    step = min(steps, key=lambda each: abs((high - low) / each - count))
    first = math.ceil(low / step - 1e-9)
    return [
        index * step
        for index in itertools.takewhile(
            lambda i: i * step <= high + step * 1e-9, itertools.count(first)
        )
    ]


def span(values: Iterable[float], pad: float = 0.06) -> tuple[float, float]:
    """A range that holds all values, with some air; never empty."""
    known = list(values)
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    air = (high - low) * pad or abs(high) * 0.05 or 1.0
    return low - air, high + air


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A linear map from values to coordinates; values outside go to the edge."""
    factor = (end - start) / ((high - low) or 1.0)
    bounds = min(start, end), max(start, end)
    return lambda value: min(max(start + (value - low) * factor, bounds[0]), bounds[1])


def tick_text(value: float, step: float) -> str:
    """A tick's number with just the digits that its step needs."""
    if step >= 1 or value == 0:
        return f"{value:,.0f}"
    digits = min(6, max(0, math.ceil(-math.log10(step) - 1e-9)))
    text = f"{value:.{digits}f}"
    return (
        text if math.isclose(float(text), value, abs_tol=step / 100) else f"{value:.{digits + 1}f}"
    )


def lines(
    series: Sequence[Series],
    *,
    height: int,
    x_name: str,
    y_name: str,
    y_range: tuple[float, float] | None = None,
    zero: bool = False,
) -> str:
    """A line chart; `zero` draws a line at nought and makes it part of the range."""
    points = [point for each in series for point in each.points]
    if not points:
        return nothing()
    ys = [y for _, y in points] + ([0.0] if zero else [])
    low, high = y_range or span(ys)
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    across = scale(first, last, LEFT, WIDTH - RIGHT)
    up = scale(low, high, height - BOTTOM, TOP)
    body = [_y_axis(low, high, up), _x_axis(first, last, across, height, x_name)]
    if zero:
        body.append(_line(LEFT, up(0), WIDTH - RIGHT, up(0), "zero"))
    body += [_polyline(each, across, up) for each in series]
    body.append(_text(0, 9, y_name, "name"))
    return _svg(height, body, f"{y_name} by {x_name}")


def dots(rows: Sequence[Row], *, x_name: str) -> str:
    """Values of each row as dots, their mean as a tick, its interval as a bar."""
    rows = [row for row in rows if row.values or row.mean is not None]
    if not rows:
        return nothing()
    reach = [v for row in rows for _, v in row.values]
    for row in rows:
        if row.mean is not None:
            reach += [row.mean - (row.half_width or 0), row.mean + (row.half_width or 0)]
    low, high = span(reach)
    across = scale(low, high, 6, WIDTH - RIGHT)
    height = LINE_HEIGHT * len(rows) + BOTTOM + 6
    body = [_x_axis(low, high, across, height, x_name, grid_from=0)]
    for index, row in enumerate(rows):
        body.append(_dot_row(row, LINE_HEIGHT * index, across))
    return _svg(height, body, x_name)


def bars(rows: Sequence[Bar]) -> str:
    """Bars on tracks that end at their limits; what goes beyond is drawn as over the limit."""
    if not rows:
        return nothing()
    height, body = LINE_HEIGHT * len(rows) + 4, []
    for index, row in enumerate(rows):
        top, full = LINE_HEIGHT * index, WIDTH
        across = scale(0, max(row.limit, row.value), 0, full)
        over = " over" if row.value > row.limit else ""
        body += [
            _text(0, top + 12, row.name, "label"),
            _text(full, top + 12, row.text, f"label end{over}"),
            _rect(0, top + 18, full, 9, "track"),
            _rect(0, top + 18, max(across(row.value), 2), 9, f"{row.classes}{over}"),
        ]
        if over:
            body.append(_line(across(row.limit), top + 15, across(row.limit), top + 30, "limit"))
    return _svg(height, body, "bars")


def stacks(rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]]) -> str:
    """Rows of parts side by side: name, text and (class, amount) parts; all to one scale."""
    longest = max((sum(amount for _, amount in parts) for _, _, parts in rows), default=0)
    if not longest:
        return nothing()
    body = []
    for index, (name, text, parts) in enumerate(rows):
        top, left = LINE_HEIGHT * index, 0.0
        body += [_text(0, top + 12, name, "label"), _text(WIDTH, top + 12, text, "label end")]
        for classes, amount in parts:
            width = amount / longest * WIDTH
            body.append(_rect(left, top + 18, max(width - 1, 0.5), 12, classes, f"{amount:,.0f}"))
            left += width
    return _svg(LINE_HEIGHT * len(rows) + 4, body, "parts")


def nothing() -> str:
    return '<p class="none">nothing measured yet</p>'


def _svg(height: int, body: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def _y_axis(low: float, high: float, up: Callable[[float], float]) -> str:
    found = ticks(low, high, 4)
    step = found[1] - found[0] if len(found) > 1 else 1.0
    return "".join(
        _line(LEFT, up(v), WIDTH - RIGHT, up(v), "grid")
        + _text(LEFT - 6, up(v) + 4, tick_text(v, step), "tick end")
        for v in found
    )


def _x_axis(
    low: float,
    high: float,
    across: Callable[[float], float],
    height: int,
    name: str,
    grid_from: float | None = None,
) -> str:
    found = ticks(low, high, 4)
    step = found[1] - found[0] if len(found) > 1 else 1.0
    base = height - BOTTOM
    parts = [_text(across(v), base + 15, tick_text(v, step), "tick middle") for v in found]
    if grid_from is not None:
        parts += [_line(across(v), grid_from, across(v), base, "grid") for v in found]
    parts.append(_text(WIDTH - RIGHT, height - 4, name, "name end"))
    return "".join(parts)


def _dot_row(row: Row, top: float, across: Callable[[float], float]) -> str:
    middle = top + 23
    parts = [_text(0, top + 12, row.name, "label")]
    if row.mean is not None:
        if row.half_width is not None:
            left, right = across(row.mean - row.half_width), across(row.mean + row.half_width)
            parts.append(
                _rect(left, middle - 4, max(right - left, 1), 8, f"interval {row.classes}")
            )
        parts.append(_text(WIDTH - RIGHT, top + 12, f"{row.mean:.4f}", "label end"))
    parts += [
        f'<circle cx="{across(value):.1f}" cy="{middle}" r="4" class="{row.classes}">'
        f"<title>{escape(name)}: {value:.5f}</title></circle>"
        for name, value in row.values
    ]
    if row.mean is not None:
        parts.append(_line(across(row.mean), middle - 8, across(row.mean), middle + 8, "mean"))
    return "".join(parts)


def _polyline(
    series: Series, across: Callable[[float], float], up: Callable[[float], float]
) -> str:
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in series.points)
    title = f"<title>{escape(series.name)}</title>"
    return f'<polyline points="{points}" class="{series.classes}">{title}</polyline>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def _rect(x: float, y: float, width: float, height: float, classes: str, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="3" '
        f'class="{classes}">{inside}</rect>'
    )


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(text)}</text>'
