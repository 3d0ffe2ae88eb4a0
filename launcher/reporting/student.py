"""Student's t, central or not, by the standard library alone.

A plan tells what its seeds can show and must answer at once, on login nodes too, where importing
scipy takes a second or more. Tests hold these figures to scipy's.

T = (Z + shift) / S, with Z normal and S the root of a chi-squared variable over its degrees of
freedom. Given S, its tail is a normal one; the mean over S is a sum over even steps of log S, which
converges fast because what is summed is smooth and fades at both ends.
"""

from __future__ import annotations

import math

MIN_STEPS = 160
LONGEST_STEP = 0.04
FADED = 20.0
"""Logarithm of how far below its peak the density of log S is left out."""


class Student:
    """The distribution of t with so many degrees of freedom, which need not be whole."""

    def __init__(self, degrees: float) -> None:
        low, high = _edge(-1.0, FADED / degrees), _edge(1.0, FADED / degrees)
        steps = max(MIN_STEPS, math.ceil((high - low) / LONGEST_STEP))
        logs = [low + (high - low) * index / steps for index in range(steps + 1)]
        weights = [math.exp(degrees * (_height(x) + 0.5)) for x in logs]
        total = math.fsum(weights)
        self._parts = [(math.exp(x), w / total) for x, w in zip(logs, weights, strict=True)]

    def upper_tail(self, t: float, shift: float = 0.0) -> float:
        """Chance of more than `t`, where the true value is `shift` standard errors above nought."""
        root = math.sqrt(2)
        return sum(w * math.erfc((t * s - shift) / root) for s, w in self._parts) / 2

    def quantile(self, upper: float) -> float:
        """The t of which more has the chance `upper`, below one half."""
        low, high = 0.0, 1.0
        while self.upper_tail(high) > upper:
            high *= 2
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.upper_tail(middle) > upper else (low, middle)
        return high


def _height(x: float) -> float:
    """Logarithm of the density of x = log S, for each degree of freedom; -1/2 at its peak, 0."""
    return x - math.exp(2 * x) / 2


def _edge(side: float, depth: float) -> float:
    """Where the density has fallen by `depth` from its peak, below it (-1) or above (1)."""
    inner, outer = 0.0, side * (depth + 1)
    for _ in range(60):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if _height(middle) + 0.5 > -depth else (inner, middle)
    return outer
