"""What a few seeds say: mean, spread, and the interval in which the true mean may lie."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures of one column over the seeds."""

    count: int
    mean: float
    std: float | None
    """Sample standard deviation (n - 1); None for one seed."""
    half_width: float | None
    """The Student-t interval at 95% is mean ± this; None for one seed."""


def summarize(values: Sequence[float]) -> Summary | None:
    """Mean, sample standard deviation and t interval; None of no values."""
    if not values:
        return None
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Summary(count=1, mean=mean, std=None, half_width=None)
    from scipy.special import stdtrit  # the t quantile; slow to import

    std = statistics.stdev(values)
    quantile = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2))
    return Summary(count=count, mean=mean, std=std, half_width=quantile * std / count**0.5)
