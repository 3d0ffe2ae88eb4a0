"""What a few seeds say: spread, intervals, and whether one configuration beats another.

1. `summarize` gives mean, sample standard deviation and Student-t interval of one configuration.
2. `compare` tests "better than the baseline by more than a margin", one-sided, by one of four
   tests; smaller scores are better, so a difference is baseline minus candidate.
3. `holm` corrects the p-values of several comparisons made at once.

The margin shifts the null hypothesis. Tails are Student's and never normal, and one seed alone
gives no verdict. The challenge's published p-values are the Welch test's, on per-seed BPB.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CONFIDENCE = 0.95
MAX_SPLITS = 2_000_000
"""Splits that the permutation test goes through; 11 seeds against 11 are fewer."""

TestName = Literal["welch", "paired", "one-sample", "permutation"]
TESTS: tuple[TestName, ...] = ("welch", "paired", "one-sample", "permutation")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures of one column over the seeds."""

    count: int
    mean: float
    std: float | None
    """Sample standard deviation (n - 1); None for one seed."""
    half_width: float | None
    """The Student-t interval at 95% is mean ± this; None for one seed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test of a candidate against a baseline."""

    test: TestName
    count: int
    """Seeds of the candidate that took part."""
    baseline_count: int
    """Seeds of the baseline; 0 where only its mean is known."""
    margin: float
    difference: float
    """Baseline minus candidate: positive where the candidate is better."""
    half_width: float | None
    """The Student-t interval at 95% is difference ± this."""
    statistic: float | None = None
    degrees: float | None = None
    p_value: float | None = None
    """Chance of such a difference if the candidate were better by the margin only."""
    least_p: float | None = None
    """The least p-value that so many seeds can give; permutation only."""
    reason: str = ""
    """Why there is no p-value."""


def summarize(values: Sequence[float]) -> Summary | None:
    """Mean, sample standard deviation and t interval; None of no values."""
    if not values:
        return None
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Summary(count=1, mean=mean, std=None, half_width=None)
    std = statistics.stdev(values)
    half_width = t_quantile(count - 1, 0.5 + CONFIDENCE / 2) * std / count**0.5
    return Summary(count=count, mean=mean, std=std, half_width=half_width)


def compare(
    candidate: Mapping[int, float],
    baseline: Mapping[int, float] | float,
    test: TestName = "welch",
    margin: float = 0.0,
) -> Outcome:
    """Test whether scores by seed are better than a baseline's by more than `margin`.

    `baseline` is a published mean for the one-sample test; a mapping serves it by its mean.
    """
    if test == "one-sample":
        mean = baseline if isinstance(baseline, float) else _mean(baseline)
        return _one_sample(test, [mean - score for score in candidate.values()], margin, 0)
    if isinstance(baseline, float):
        return _none(
            test,
            _mean(candidate),
            baseline,
            margin,
            (len(candidate), 0),
            "the baseline's seeds are not published, only its mean; see --test one-sample",
        )
    if test == "paired":
        return _paired(candidate, baseline, margin)
    ours, theirs = list(candidate.values()), list(baseline.values())
    if test == "welch":
        return _welch(ours, theirs, margin)
    return _permutation(ours, theirs, margin)


def welch_degrees(parts: Sequence[tuple[float, int]]) -> float:
    """Satterthwaite's degrees of freedom of (variance, count) parts."""
    terms = [variance / count for variance, count in parts]
    below = sum(term**2 / (count - 1) for term, (_, count) in zip(terms, parts, strict=True))
    return sum(terms) ** 2 / below


def t_quantile(degrees: float, probability: float) -> float:
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(degrees, probability))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None where there is no p-value.

    A comparison without one still counts in the family, as it was made.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for rank, (p, index) in enumerate(order):
        worst = max(worst, min(1.0, p * (len(p_values) - rank)))
        adjusted[index] = worst
    return adjusted


def _mean(scores: Mapping[int, float]) -> float:
    return statistics.fmean(scores.values())


def _upper_tail(statistic: float, degrees: float) -> float:
    from scipy.special import stdtr

    return float(stdtr(degrees, -statistic))


def _none(
    test: TestName, ours: float, theirs: float, margin: float, counts: tuple[int, int], reason: str
) -> Outcome:
    return Outcome(
        test=test,
        count=counts[0],
        baseline_count=counts[1],
        margin=margin,
        difference=theirs - ours,
        half_width=None,
        reason=reason,
    )


def _outcome(
    test: TestName,
    difference: float,
    error: float,
    degrees: float,
    margin: float,
    counts: Sequence[int],
) -> Outcome:
    """By Student's t; without any spread there is no t."""
    if error == 0:
        reason = "the seeds show no spread at all, so nothing says how far chance reaches"
        return _none(test, 0.0, difference, margin, (counts[0], counts[1]), reason)
    statistic = (difference - margin) / error
    return Outcome(
        test=test,
        count=counts[0],
        baseline_count=counts[1],
        margin=margin,
        difference=difference,
        half_width=t_quantile(degrees, 0.5 + CONFIDENCE / 2) * error,
        statistic=statistic,
        degrees=degrees,
        p_value=_upper_tail(statistic, degrees),
    )


def _too_few(ours: int, theirs: int) -> str:
    return f"one seed shows no spread ({ours} against {theirs}); run two or more of each"


def _welch(ours: list[float], theirs: list[float], margin: float) -> Outcome:
    counts = (len(ours), len(theirs))
    if min(counts) < 2:
        means = statistics.fmean(ours), statistics.fmean(theirs)
        return _none("welch", *means, margin, counts, _too_few(*counts))
    parts = [(statistics.variance(side), len(side)) for side in (ours, theirs)]
    error = math.sqrt(sum(variance / count for variance, count in parts))
    degrees = welch_degrees(parts) if error else 0.0
    difference = statistics.fmean(theirs) - statistics.fmean(ours)
    return _outcome("welch", difference, error, degrees, margin, counts)


def _paired(
    candidate: Mapping[int, float], baseline: Mapping[int, float], margin: float
) -> Outcome:
    common = [seed for seed in candidate if seed in baseline]
    if len(common) < 2:
        reason = f"{len(common)} common seeds, and pairing takes two or more; see --test welch"
        counts = (len(candidate), len(baseline))
        return _none("paired", _mean(candidate), _mean(baseline), margin, counts, reason)
    differences = [baseline[seed] - candidate[seed] for seed in common]
    return _one_sample("paired", differences, margin, len(common))


def _one_sample(
    test: TestName, differences: list[float], margin: float, baseline_count: int
) -> Outcome:
    count, mean = len(differences), statistics.fmean(differences)
    if count < 2:
        reason = "one seed shows no spread; run two or more"
        return _none(test, 0.0, mean, margin, (count, baseline_count), reason)
    error = statistics.stdev(differences) / math.sqrt(count)
    return _outcome(test, mean, error, count - 1, margin, (count, baseline_count))


def _permutation(ours: list[float], theirs: list[float], margin: float) -> Outcome:
    """Every way to deal the scores, after the margin is taken off the baseline's."""
    student = _welch(ours, theirs, margin)
    num_splits = math.comb(len(ours) + len(theirs), len(ours))
    counts, means = (len(ours), len(theirs)), (statistics.fmean(ours), statistics.fmean(theirs))
    if min(counts) < 2:
        return _none("permutation", *means, margin, counts, student.reason)
    if num_splits > MAX_SPLITS:
        reason = f"{num_splits:,} splits are too many to go through; see --test welch"
        return _none("permutation", *means, margin, counts, reason)
    pool = ours + [score - margin for score in theirs]
    observed = math.fsum(ours)
    slack = 1e-12 * max(1.0, abs(observed))  # equal sums in another order
    sums = (math.fsum(split) for split in itertools.combinations(pool, len(ours)))
    at_least_as_good = sum(total <= observed + slack for total in sums)
    return Outcome(
        test="permutation",
        count=counts[0],
        baseline_count=counts[1],
        margin=margin,
        difference=student.difference,
        half_width=student.half_width,
        p_value=at_least_as_good / num_splits,
        least_p=1 / num_splits,
    )
