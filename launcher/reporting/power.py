"""How much a number of seeds can show, by the noncentral t distribution.

1. `least_difference`: what so many seeds find four times out of five.
2. `seeds_to_settle`: how many seeds an expected difference takes.

Both are for the one-sided t tests, the candidate's spread taken as given. A permutation test of so
few seeds is at best as good: it is reckoned as Welch's, and shows nothing where even the best of
all splits is not rare enough. Differences and margins are in the unit of the spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from launcher.reporting.student import Student
from launcher.significance import TestName, welch_degrees

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
    test: TestName = "welch"

    def power(self, difference: float, count: int) -> float:
        """Chance that `count` seeds show a true difference to exceed the margin."""
        return self.at(count).power(difference)

    def at(self, count: int) -> Sample:
        """The design with so many seeds of the candidate."""
        parts = [(self.std**2, count)]
        if self.baseline_count >= 2:
            parts.append((self.baseline_std**2, self.baseline_count))
        student = Student(welch_degrees(parts))
        splits = math.comb(count + self.baseline_count, count)
        return Sample(
            student=student,
            error=math.sqrt(sum(variance / n for variance, n in parts)),
            critical=student.quantile(self.alpha),
            margin=self.margin,
            possible=self.test != "permutation" or 1 / splits < self.alpha,
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A design with its number of seeds."""

    student: Student
    error: float
    """Standard error of the difference."""
    critical: float
    """The t that must be exceeded."""
    margin: float
    possible: bool
    """Whether any scores at all could be significant."""

    def power(self, difference: float) -> float:
        """Chance to show a true difference to exceed the margin."""
        if not self.possible:
            return 0.0
        return self.student.upper_tail(self.critical, (difference - self.margin) / self.error)


def alike(std: float, count: int, alpha: float) -> Design:
    """As many seeds against as many, of one spread, without a margin."""
    return Design(std=std, baseline_std=std, baseline_count=count, alpha=alpha, margin=0.0)


def least_difference(design: Design, count: int, power: float = POWER) -> float | None:
    """The least true difference that `count` seeds show with this power.

    None where none is ever shown: of one seed, or of too few for a permutation test.
    """
    if count < 2 or design.std <= 0:
        return None
    sample = design.at(count)
    if not sample.possible:
        return None
    low, high = design.margin, design.margin + design.std
    while sample.power(high) < power:
        high = design.margin + 2 * (high - design.margin)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sample.power(middle) < power else (low, middle)
    return high


def seeds_to_settle(design: Design, difference: float, power: float = POWER) -> int | None:
    """Seeds in all that show a true difference with this power.

    None where it does not exceed the margin, or `MAX_SEEDS` seeds are too few: then the baseline's
    own seeds, or the effect, are.
    """
    if difference <= design.margin or design.std <= 0:
        return None
    # Every number is tried: more seeds of the candidate can show less, as Welch's degrees of
    # freedom fall towards those of a baseline of few seeds.
    counts = range(2, MAX_SEEDS + 1)
    return next((n for n in counts if design.power(difference, n) >= power), None)
