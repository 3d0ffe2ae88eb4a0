"""The last word on a sweep: the report of every variant, and their ranking.

1. Each variant is reported as an experiment is, from the files of its own runs; none is left out.
2. All are held against the registered baseline, or else against the first variant, as one family:
   Holm's correction counts those without a verdict too.
3. They are ranked by their mean, and the rules are judged on the worst run of all.

`report.json` of a sweep is this object as plain values. `schema` grows when a field changes its
meaning or goes, not when one is added. Its fields:

- `schema`, `name`, `job`, `created_at`, `collected_at` (seconds since the epoch), `git`;
- `policy`: test, margin, alpha, unit and baseline as registered;
- `reference`: what the variants are held against;
- `ranking`: one object a variant, the best first, see `Place`;
- `gates`: one object a rule, on the worst run, see `reporting.compliance.Gate`;
- `variants`: one object a variant in the order of registration, each as the `report.json` of an
  experiment is (see `launcher.report`), without a comparison of its own;
- `verdict`: one line; `exit_code`: as the commands give it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

from launcher.executors.base import Executor
from launcher.experiment import Experiment
from launcher.report import Report, collect_runs, registered_policy
from launcher.reporting.comparison import Comparison, headline, judge
from launcher.reporting.compliance import Gate, worst_of
from launcher.reporting.policy import Policy
from launcher.reporting.scores import Scores
from launcher.reporting.seed_report import FINAL, VIOLATED_EXIT
from launcher.significance import Summary
from launcher.states import State
from launcher.submit import read_statuses

SCHEMA = "golf-launch/sweep-report/1"
EXIT_ORDER = (0, VIOLATED_EXIT, 4, 1)
"""The worst of the variants' exit codes is the sweep's; a run that failed is the worst."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A variant in the ranking."""

    variant: str
    overrides: tuple[str, ...]
    num_done: int
    num_seeds: int
    bpb: Summary | None
    nats: Summary | None
    comparison: Comparison | None
    """Against the reference; None of the reference itself."""


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """A sweep's results."""

    schema: str
    name: str
    job: str
    created_at: float
    collected_at: float
    git: dict[str, Any] | None
    policy: Policy
    reference: str
    ranking: tuple[Place, ...]
    gates: tuple[Gate, ...]
    variants: tuple[Report, ...]
    verdict: str
    exit_code: int

    def plain(self) -> dict[str, Any]:
        """As nested plain values, for `report.json`."""
        return dataclasses.asdict(self)


def collect_sweep(experiment: Experiment, executor: Executor) -> SweepReport:
    """Read a sweep's results as they stand now."""
    now = time.time()
    statuses = read_statuses(experiment, executor, now)
    reports = [collect_runs(experiment, runs, statuses, now) for runs in experiment.runs]
    policy = registered_policy(experiment) or Policy()
    reference, compared = _compare(reports, policy)
    places = [
        _place(report, runs.overrides, compared.get(report.variant))
        for report, runs in zip(reports, experiment.runs, strict=True)
    ]
    ranking = sorted(places, key=lambda place: place.bpb.mean if place.bpb else math.inf)
    gates = worst_of([(report.variant, report.gates) for report in reports])
    return SweepReport(
        schema=SCHEMA,
        name=experiment.name,
        job=experiment.registry["job"],
        created_at=experiment.created_at,
        collected_at=now,
        git=experiment.registry["git"],
        policy=policy,
        reference=reference,
        ranking=tuple(ranking),
        gates=gates,
        variants=tuple(reports),
        verdict=_verdict(ranking, gates, reference),
        exit_code=_exit_code(reports, policy, compared),
    )


def _compare(reports: list[Report], policy: Policy) -> tuple[str, dict[str, Comparison]]:
    """The reference's name, and every other variant against it."""
    scores = [_scores(report) for report in reports]
    against = policy.baseline or scores[0]
    candidates = scores if policy.baseline else scores[1:]
    compared = judge([(candidate, against) for candidate in candidates], policy)
    return against.name, {each.candidate: each for each in compared}


def _scores(report: Report) -> Scores:
    return dataclasses.replace(report.final_scores(report.name), name=report.variant)


def _place(report: Report, overrides: tuple[str, ...], comparison: Comparison | None) -> Place:
    return Place(
        variant=report.variant,
        overrides=overrides,
        num_done=sum(seed.state is State.DONE for seed in report.seeds),
        num_seeds=len(report.seeds),
        bpb=report.summaries[FINAL]["val_bpb"],
        nats=report.summaries[FINAL]["val_loss"],
        comparison=comparison,
    )


def _exit_code(reports: list[Report], policy: Policy, compared: dict[str, Comparison]) -> int:
    """The worst variant's; a registered baseline must be beaten by one of them at least."""
    code = max((report.exit_code for report in reports), key=EXIT_ORDER.index)
    unshown = policy.baseline is not None and not any(c.passed for c in compared.values())
    return VIOLATED_EXIT if code == 0 and unshown else code


def _verdict(ranking: list[Place], gates: tuple[Gate, ...], reference: str) -> str:
    done, runs = sum(p.num_done for p in ranking), sum(p.num_seeds for p in ranking)
    parts = [f"{done} of {runs} runs of {len(ranking)} variants done"]
    best = ranking[0]
    if best.bpb is not None:
        spread = f" ± {best.bpb.half_width:.4f} (95%)" if best.bpb.half_width is not None else ""
        parts.append(f"best {best.variant}: TTT {best.bpb.mean:.4f}{spread} BPB")
        holm = " (Holm)" if best.comparison and best.comparison.family > 1 else ""
        if best.comparison is not None:
            parts.append(headline(best.comparison) + holm)
        else:
            parts.append(f"none is better than the first, {reference}")
    broken = [f"{gate.name} ({gate.variant})" for gate in gates if gate.passed is False]
    if broken:
        parts.append(f"fails: {', '.join(broken)}")
    elif done:
        parts.append("within every budget, ledgers verified")
    return " · ".join(parts)
