"""How much a number of seeds can show, by the noncentral t distribution.

1. `least_difference`: what so many seeds find four times out of five.
2. `seeds_to_settle`: how many seeds an expected difference takes.

Both are for the one-sided Welch test, the candidate's spread taken as given. Differences and
margins are in the unit of the spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from launcher.significance import t_quantile, welch_degrees

POWER = 0.8
MAX_SEEDS = 100
"""More seeds than anybody runs."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A comparison before its scores are known."""

    std: float
    """Of the candidate's seeds."""
    baseline_std: float
    baseline_count: int
    """Seeds of the baseline; 0 where its mean is taken as exact (one-sample test)."""
    alpha: float
    margin: float

    def _parts(self, count: int) -> list[tuple[float, int]]:
        parts = [(self.std**2, count)]
        if self.baseline_count >= 2:
            parts.append((self.baseline_std**2, self.baseline_count))
        return parts

    def power(self, difference: float, count: int) -> float:
        """Chance that `count` seeds show a true difference to exceed the margin."""
        from scipy.special import nctdtr

        parts = self._parts(count)
        error = math.sqrt(sum(variance / n for variance, n in parts))
        degrees = welch_degrees(parts)
        critical = t_quantile(degrees, 1 - self.alpha)
        return 1 - float(nctdtr(degrees, (difference - self.margin) / error, critical))


def least_difference(design: Design, count: int, power: float = POWER) -> float | None:
    """The least true difference that `count` seeds show with this power; None of one seed."""
    if count < 2 or design.std <= 0:
        return None
    low, high = design.margin, design.margin + design.std
    while design.power(high, count) < power:
        high = design.margin + 2 * (high - design.margin)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if design.power(middle, count) < power else (low, middle)
    return high


def seeds_to_settle(design: Design, difference: float, power: float = POWER) -> int | None:
    """Seeds in all that show a true difference with this power.

    None where it does not exceed the margin, or `MAX_SEEDS` seeds are too few: then the baseline's
    own seeds, or the effect, are.
    """
    if difference <= design.margin or design.std <= 0:
        return None
    counts = range(2, MAX_SEEDS + 1)
    return next((n for n in counts if design.power(difference, n) >= power), None)
