"""Comparisons and their configurations as tables of text."""

from __future__ import annotations

from collections.abc import Sequence

from launcher import figures
from launcher.reporting.comparison import Comparison, amount_text, p_text
from launcher.reporting.policy import Policy
from launcher.reporting.scores import Scores
from launcher.reporting.units import LABELS
from launcher.text_table import TextTable


def configurations(scores: Sequence[Scores]) -> TextTable:
    """What is compared, in both units; the lowest BPB first."""
    ranked = sorted(scores, key=lambda s: (s.mean("bpb") is None, s.mean("bpb") or 0.0))
    rows = tuple(_configuration(each) for each in ranked)
    header = ("configuration", "seeds", "BPB", "std", "nats/token", "tokenizer")
    return TextTable(title="Configurations", header=header, rows=rows)


def _configuration(scores: Scores) -> tuple[str, ...]:
    summary = scores.summary("bpb")
    return (
        scores.name,
        str(len(scores.seeds)) if scores.seeds else "mean",
        figures.number(scores.mean("bpb"), 5),
        figures.number(summary.std if summary else None, 5),
        figures.number(scores.mean("nats")),
        scores.validation.tokenizer or figures.NONE,
    )


def results(comparisons: Sequence[Comparison]) -> TextTable:
    """The tests, the most certain first; Holm's column only where there are several."""
    ranked = sorted(
        comparisons, key=lambda c: (c.adjusted_p is None, c.adjusted_p or 0.0, -(_difference(c)))
    )
    several = len(comparisons) > 1
    header = ("candidate", "against", "better by BPB", "nats/token", "p")
    rows = []
    for each in ranked:
        outcome = each.outcome
        p = p_text(outcome.p_value) if outcome and outcome.p_value is not None else figures.NONE
        adjusted = p_text(each.adjusted_p) if each.adjusted_p is not None else figures.NONE
        rows.append(
            (
                each.candidate,
                each.baseline,
                signed(each.difference_bpb),
                signed(each.difference_nats),
                p,
                *((adjusted,) if several else ()),
                {True: "shown", False: "not shown", None: "no verdict"}[each.passed],
            )
        )
    header = (*header, *(("p (Holm)",) if several else ()), "verdict")
    return TextTable(title="Comparison", header=header, rows=tuple(rows))


def _difference(comparison: Comparison) -> float:
    return comparison.difference_bpb or 0.0


def signed(value: float | None) -> str:
    return figures.NONE if value is None else f"{value:+.5f}"


def facts(comparison: Comparison, policy: Policy) -> tuple[tuple[str, str], ...]:
    """A comparison in words, for a report."""
    outcome, unit = comparison.outcome, comparison.unit
    found = [("policy", f"{policy}; registered before the first submission")]
    found.append(("baseline", f"{comparison.baseline}, {_bpb(comparison.baseline_bpb)} BPB"))
    if outcome is None:
        return (*found, ("verdict", comparison.verdict))
    interval = ""
    if outcome.half_width is not None:
        low, high = (outcome.difference + s * outcome.half_width for s in (-1, 1))
        interval = f", 95% from {low:+.5f} to {high:+.5f} {LABELS[unit]}"
    found.append(
        (
            "better by",
            f"{signed(comparison.difference_bpb)} BPB, "
            f"{signed(comparison.difference_nats)} nats/token{interval}",
        )
    )
    if outcome.statistic is not None and outcome.degrees is not None:
        test = f"t = {outcome.statistic:.2f}, {outcome.degrees:.1f} degrees of freedom"
        found.append(("test", f"{test}, {outcome.count} against {outcome.baseline_count} seeds"))
    found.append(("verdict", comparison.verdict))
    if comparison.least_difference is not None:
        least = f"{amount_text(comparison.least_difference, unit)} {LABELS[unit]}"
        reckoned = ", reckoned as by Welch's test" if comparison.test == "permutation" else ""
        found.append(
            ("so many seeds find", f"a true difference of {least}, 4 times of 5{reckoned}")
        )
    return tuple(found)


def _bpb(value: float | None) -> str:
    return figures.number(value, 5)
