"""A configuration held against baselines: refused or tested, with a verdict that says how sure.

1. Scores that do not compare (other text, other tokenizer in nats) are refused, with the reason.
2. The margin is converted with the candidate's own bytes per token, and the test made.
3. The p-values of comparisons made together are corrected by Holm.
4. Where it is not settled, power says how many seeds would settle it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.reporting import units
from launcher.reporting.baselines import median_std_bpb
from launcher.reporting.policy import Policy
from launcher.reporting.power import Design, least_difference, seeds_to_settle
from launcher.reporting.scores import Scores, incomparable
from launcher.reporting.units import LABELS, Unit
from launcher.significance import Outcome, TestName, compare, holm, summarize


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One candidate against one baseline; differences are positive where it is better."""

    candidate: str
    baseline: str
    unit: Unit
    test: TestName
    alpha: float
    margin: float
    """In `unit`."""
    margin_text: str
    """As it was asked for."""
    candidate_bpb: float | None
    baseline_bpb: float | None
    difference_bpb: float | None
    difference_nats: float | None
    """With the candidate's bytes per token."""
    outcome: Outcome | None
    """None where the comparison is refused."""
    adjusted_p: float | None
    """By Holm, over the comparisons made together."""
    family: int
    """How many those are."""
    passed: bool | None
    """Shown to be better by more than the margin; None where there is no verdict."""
    least_difference: float | None
    """The least true difference that so many seeds show four times out of five, in `unit`; of a
    permutation test reckoned as by Welch's."""
    seeds_to_settle: int | None
    """Seeds of the candidate in all that the observed difference takes."""
    verdict: str


def judge(pairs: Sequence[tuple[Scores, Scores]], policy: Policy) -> tuple[Comparison, ...]:
    """Compare each candidate with its baseline, as one family."""
    first = [_compare(candidate, baseline, policy) for candidate, baseline in pairs]
    adjusted = holm([c.outcome.p_value if c.outcome else None for c in first])
    return tuple(
        _with_verdict(comparison, p, len(first))
        for comparison, p in zip(first, adjusted, strict=True)
    )


def _compare(candidate: Scores, baseline: Scores, policy: Policy) -> Comparison:
    unit, density = policy.unit, candidate.bytes_per_token
    refusal = incomparable(candidate, baseline, unit) or _lack_of_seeds(candidate, unit)
    margin = 0.0 if refusal else policy.margin.within(unit, density)
    outcome = None if refusal else _test(candidate, baseline, policy, margin)
    ours, theirs = candidate.mean("bpb"), baseline.mean("bpb")
    bpb = nats = None
    if outcome is not None and unit == "bpb":
        bpb = outcome.difference
        nats = units.to_nats(bpb, density) if density else None
    elif outcome is not None:
        nats = outcome.difference
        bpb = units.to_bpb(nats, density) if density else None
    design = None if refusal else design_of(candidate, baseline, policy, margin)
    count = len(candidate.by_seed(unit))
    return Comparison(
        candidate=candidate.name,
        baseline=baseline.name,
        unit=unit,
        test=policy.test,
        alpha=policy.alpha,
        margin=margin,
        margin_text=str(policy.margin),
        candidate_bpb=ours,
        baseline_bpb=theirs,
        difference_bpb=bpb,
        difference_nats=nats,
        outcome=outcome,
        adjusted_p=None,
        family=1,
        passed=None,
        least_difference=least_difference(design, count) if design else None,
        seeds_to_settle=seeds_to_settle(design, outcome.difference) if design and outcome else None,
        verdict=refusal,
    )


def design_of(candidate: Scores, baseline: Scores, policy: Policy, margin: float) -> Design | None:
    """The comparison's design, by the candidate's own spread or the published records'."""
    if policy.test == "paired":
        return _paired_design(candidate, baseline, policy, margin)
    own, other = candidate.summary(policy.unit), baseline.summary(policy.unit)
    std = own.std if own and own.std else published_std(policy.unit, candidate.bytes_per_token)
    if std is None:
        return None
    return Design(
        std=std,
        baseline_std=other.std if other and other.std else std,
        baseline_count=other.count if other and policy.test != "one-sample" else 0,
        alpha=policy.alpha,
        margin=margin,
        test=policy.test,
    )


def _paired_design(
    candidate: Scores, baseline: Scores, policy: Policy, margin: float
) -> Design | None:
    """The differences of the common seeds are one sample."""
    ours, theirs = candidate.by_seed(policy.unit), baseline.by_seed(policy.unit)
    spread = summarize([theirs[seed] - ours[seed] for seed in ours if seed in theirs])
    if spread is None or not spread.std:
        return None
    return Design(
        std=spread.std, baseline_std=0.0, baseline_count=0, alpha=policy.alpha, margin=margin
    )


def published_std(unit: Unit, bytes_per_token: float | None) -> float | None:
    """The usual spread of seeds, as the published records have it."""
    if unit == "bpb":
        return median_std_bpb()
    return units.to_nats(median_std_bpb(), bytes_per_token) if bytes_per_token else None


def _lack_of_seeds(candidate: Scores, unit: Unit) -> str:
    if candidate.by_seed(unit):
        return ""
    return f"{candidate.name} has a published mean only, and a candidate needs its seeds"


def _test(candidate: Scores, baseline: Scores, policy: Policy, margin: float) -> Outcome:
    theirs: dict[int, float] | float = baseline.by_seed(policy.unit)
    if not theirs:
        mean = baseline.mean(policy.unit)
        assert mean is not None, "incomparable() refuses a side without scores"
        theirs = float(mean)
    return compare(candidate.by_seed(policy.unit), theirs, policy.test, margin)


def _with_verdict(comparison: Comparison, p: float | None, family: int) -> Comparison:
    passed = None if p is None else p < comparison.alpha
    judged = dataclasses.replace(comparison, adjusted_p=p, family=family, passed=passed)
    if judged.outcome is None:
        return dataclasses.replace(judged, verdict=f"not comparable: {comparison.verdict}")
    return dataclasses.replace(judged, verdict=_verdict(judged, judged.outcome))


def _verdict(comparison: Comparison, outcome: Outcome) -> str:
    if outcome.p_value is None or comparison.adjusted_p is None:
        return f"no verdict against {comparison.baseline}: {outcome.reason}"
    p = f"p = {p_text(comparison.adjusted_p)}" + (" (Holm)" if comparison.family > 1 else "")
    amount = (
        f"{amount_text(abs(outcome.difference), comparison.unit)} ± "
        f"{amount_text(outcome.half_width or 0.0, comparison.unit)} {LABELS[comparison.unit]}"
    )
    side = "better" if outcome.difference > 0 else "worse"
    margin = _margin_text(comparison)
    head = f"{amount} {side} than {comparison.baseline}"
    if comparison.passed:
        return f"{head}: shown, {margin}, {p} < {comparison.alpha:g}"
    rest = f"{head}: not shown, {margin}, {p}"
    if outcome.least_p is not None and outcome.least_p >= comparison.alpha:
        return f"{rest}; so few seeds cannot give less than {p_text(outcome.least_p)}"
    return rest + _more_seeds(comparison, outcome)


def headline(comparison: Comparison) -> str:
    """The verdict in a few words, for one among other facts."""
    outcome, p = comparison.outcome, comparison.adjusted_p
    if outcome is None or p is None:
        return comparison.verdict
    amount = f"{amount_text(abs(outcome.difference), comparison.unit)} {LABELS[comparison.unit]}"
    side = "better" if outcome.difference > 0 else "worse"
    shown = "shown" if comparison.passed else "not shown"
    margin = f" beyond a margin of {comparison.margin_text}" if comparison.margin else ""
    return f"{amount} {side} than {comparison.baseline}: {shown}{margin}, p = {p_text(p)}"


def _margin_text(comparison: Comparison) -> str:
    if comparison.margin == 0:
        return "no margin"
    label = f"{amount_text(comparison.margin, comparison.unit)} {LABELS[comparison.unit]}"
    if comparison.unit == "bpb" and "nats" in comparison.margin_text:
        return f"margin {comparison.margin_text} = {label}"
    return f"margin {label}"


def _more_seeds(comparison: Comparison, outcome: Outcome) -> str:
    if outcome.difference <= 0:
        return ""
    if outcome.difference <= outcome.margin:
        return "; the difference is within the margin, and more seeds would not change that"
    wanted = comparison.seeds_to_settle
    if comparison.test == "permutation":
        return f"; by Welch's test it would take {wanted or 'more than 100'} seeds in all"
    if wanted is None:
        return "; no number of seeds settles it at this spread, unless the baseline has more"
    more = wanted - outcome.count
    if more <= 0:
        return "; a few more seeds may settle it"
    seeds = "1 more seed" if more == 1 else f"{more} more seeds"
    return f"; about {seeds} would settle it, if the difference holds"


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def amount_text(amount: float, unit: Unit) -> str:
    return f"{amount:.5f}" if unit == "bpb" and abs(amount) < 0.1 else f"{amount:.4f}"
