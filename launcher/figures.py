"""Figures as people read them: durations, speeds, bytes, and a line of little bars."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"
_BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """`0:42`, `12:03`, `1:02:03`."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago(seconds: float) -> str:
    """`now`, `12 s ago`, `5 min ago`, `3 h ago`, `2 days ago`."""
    if seconds < 2:
        return "now"
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{seconds / 86_400:.0f} days ago"


def rate(per_s: float | None) -> str:
    """`950`, `8.1k`, `1.2M`."""
    if per_s is None:
        return NONE
    for limit, unit, suffix in ((1e3, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")):
        if per_s < limit * 0.9995:
            value = per_s / unit
            return f"{value:.1f}{suffix}" if suffix and value < 100 else f"{value:.0f}{suffix}"
    return f"{per_s / 1e9:.1f}G"


def number(value: float | None, digits: int = 4) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, from the least to the greatest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    top = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / span * top)] for value in values)
