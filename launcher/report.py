"""The last word on an experiment: one object, of which all four forms of the report are made.

1. Every registered seed is reported from the files its stages left, failed ones too, with the
   reason and the log.
2. Figures are summarized over the seeds that are done.
3. The rules are judged on the worst seed, not on the mean.
4. The scores are held against the baseline that was registered before the first submission.

`report.json` is this object as plain values. `schema` grows when a field changes its meaning or
goes, not when one is added. Its fields:

- `schema`, `name`, `job`, `created_at`, `collected_at` (seconds since the epoch), `git`;
- `variant`: its key where it is one of a sweep (see `sweep_report`), else empty;
- `seeds`: one object a registered seed, see `reporting.seed_report.SeedReport`;
- `summaries`: `count, mean, std, half_width` by evaluation (`post_ema`, `round_trip`, `sliding`,
  `ttt`) and unit (`val_loss`, `val_bpb`), or null;
- `gates`: one object a rule, see `reporting.compliance.Gate`; `passed` is null where nothing was
  measured or nothing is limited;
- `outside_rule`: why the challenge's 600 s do not apply to these runs;
- `policy`: test, margin, alpha, unit and baseline as registered; null where there is none;
- `comparison`: see `reporting.comparison.Comparison`; null without a baseline or a finished seed;
- `power`: what so many seeds can show, see `Power`;
- `curves`: one object a seed, see `reporting.curves.Curves`; points are [x, y];
- `verdict`: one line; `exit_code`: as the commands give it.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from launcher.executors.base import Executor
from launcher.experiment import Experiment, Runs
from launcher.reporting.comparison import Comparison, headline, judge, published_std
from launcher.reporting.compliance import Gate, Sheet, gates, outside_the_rule
from launcher.reporting.curves import Curves, points_of, read_curves
from launcher.reporting.policy import Policy
from launcher.reporting.power import alike, least_difference
from launcher.reporting.scores import Scores
from launcher.reporting.seed_report import COLUMNS, FINAL, VIOLATED_EXIT, SeedReport, read_seed
from launcher.reporting.units import ValidationSet
from launcher.significance import Summary, summarize
from launcher.states import StageStatus, State
from launcher.submit import read_statuses

SCHEMA = "golf-launch/report/1"


@dataclass(frozen=True, kw_only=True)
class Power:
    """What as many seeds again could tell from these, and by how little."""

    count: int
    std_bpb: float
    """Spread that it is reckoned with."""
    observed: bool
    """Whether that is these seeds' own spread; else it is the published records' median."""
    alpha: float
    least_difference_bpb: float | None
    """Found four times out of five, without a margin."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """An experiment's results."""

    schema: str
    name: str
    variant: str
    job: str
    created_at: float
    collected_at: float
    git: dict[str, Any] | None
    seeds: tuple[SeedReport, ...]
    summaries: dict[str, dict[str, Summary | None]]
    """By column, then by `val_loss` and `val_bpb`, over the seeds that are done."""
    gates: tuple[Gate, ...]
    outside_rule: tuple[str, ...]
    policy: Policy | None
    comparison: Comparison | None
    power: Power | None
    curves: tuple[Curves, ...]
    verdict: str
    exit_code: int

    def plain(self) -> dict[str, Any]:
        """As nested plain values, for `report.json`."""
        return dataclasses.asdict(self)

    def final_scores(self, source: str) -> Scores:
        """The scores of the seeds that are done, for comparisons."""
        return _final_scores(self.name, self.seeds, source)


def collect(experiment: Experiment, executor: Executor, variant: str | None = None) -> Report:
    """Read the results of an experiment, or of a variant of a sweep, as they stand now.

    Raises:
        LaunchError: it is a sweep and no variant is named, or it has none of this name.
    """
    now = time.time()
    runs = experiment.runs_of(variant)
    return collect_runs(experiment, runs, read_statuses(experiment, executor, now), now)


def collect_runs(
    experiment: Experiment, runs: Runs, statuses: dict[str, StageStatus], now: float
) -> Report:
    """Read the results of a job over its seeds."""
    seeds = tuple(read_seed(runs, seed, statuses) for seed in runs.seeds)
    done = tuple(seed for seed in seeds if seed.state is State.DONE)
    summaries = {column: _summaries(done, column) for column in COLUMNS}
    job, sheet = runs.job(), Sheet(seeds=seeds, paths=runs.paths, root=experiment.paths.root)
    judged = gates(sheet, job.budget)
    policy = registered_policy(experiment)
    scores = _final_scores(runs.name, seeds, str(runs.paths.root))
    comparison = None
    # A sweep's policy judges its variants together; by itself, none of them makes a claim.
    if not runs.variant and policy is not None and policy.baseline is not None and scores.seeds:
        (comparison,) = judge([(scores, policy.baseline)], policy)
    return Report(
        schema=SCHEMA,
        name=runs.name,
        variant=runs.variant,
        job=experiment.registry["job"],
        created_at=experiment.created_at,
        collected_at=now,
        git=experiment.registry["git"],
        seeds=seeds,
        summaries=summaries,
        gates=judged,
        outside_rule=outside_the_rule(seeds, job),
        policy=policy,
        comparison=comparison,
        power=_power(scores, policy or Policy()),
        curves=tuple(
            read_curves(runs.paths, seed.seed, points_of(len(seeds) * len(experiment.runs)))
            for seed in seeds
        ),
        verdict=_verdict(seeds, summaries, judged, comparison),
        exit_code=_exit_code(seeds, judged, statuses, comparison),
    )


def registered_policy(experiment: Experiment) -> Policy | None:
    """As registered; experiments of older versions have none."""
    plain = experiment.registry.get("policy")
    return None if plain is None else Policy.read_back(plain)


def _final_scores(name: str, seeds: tuple[SeedReport, ...], source: str) -> Scores:
    done = {s.seed: s for s in seeds if s.state is State.DONE}
    scores = {seed: score for seed, s in done.items() if (score := s.final_score()) is not None}
    sets = {done[seed].validation for seed in scores}
    notes = () if len(sets) < 2 else ("the seeds were evaluated on different sets",)
    return Scores(
        name=name,
        kind="experiment",
        source=source,
        seeds=scores,
        validation=next(iter(sets)) if len(sets) == 1 else ValidationSet(),
        notes=notes,
    )


def _summaries(seeds: tuple[SeedReport, ...], column: str) -> dict[str, Summary | None]:
    scores = [score for seed in seeds if (score := seed.scores[column]) is not None]
    return {
        "val_loss": summarize([score.val_loss for score in scores]),
        "val_bpb": summarize([score.val_bpb for score in scores]),
    }


def _power(scores: Scores, policy: Policy) -> Power | None:
    own = scores.summary("bpb")
    observed = own is not None and bool(own.std)
    std = own.std if own is not None and own.std else published_std("bpb", None)
    if own is None or std is None:
        return None
    return Power(
        count=own.count,
        std_bpb=std,
        observed=observed,
        alpha=policy.alpha,
        least_difference_bpb=least_difference(alike(std, own.count, policy.alpha), own.count),
    )


def _exit_code(
    seeds: tuple[SeedReport, ...],
    judged: tuple[Gate, ...],
    statuses: dict[str, StageStatus],
    comparison: Comparison | None,
) -> int:
    """0 done and valid, 1 a run failed, 3 a gate failed, 4 seeds are missing."""
    failures = (State.FAILED, State.LOST)
    unprepared = "prepare" in statuses and statuses["prepare"].state in failures
    failed = [seed for seed in seeds if seed.state in failures]
    if unprepared or any(seed.exit_code != VIOLATED_EXIT for seed in failed):
        return 1
    if any(seed.state is not State.DONE and seed not in failed for seed in seeds):
        return 4
    unshown = comparison is not None and comparison.passed is not True
    broken = any(gate.passed is False for gate in judged)
    return VIOLATED_EXIT if failed or broken or unshown else 0


def _verdict(
    seeds: tuple[SeedReport, ...],
    summaries: dict[str, dict[str, Summary | None]],
    judged: tuple[Gate, ...],
    comparison: Comparison | None,
) -> str:
    done = [seed for seed in seeds if seed.state is State.DONE]
    parts = [f"{len(done)} of {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} done"]
    others = [f"{seed.seed} {seed.state}" for seed in seeds if seed.state is not State.DONE]
    if others:
        parts.append(", ".join(others[:6]) + (" …" if len(others) > 6 else ""))
    bpb = summaries[FINAL]["val_bpb"]
    if bpb is not None:
        spread = f" ± {bpb.half_width:.4f} (95%)" if bpb.half_width is not None else ""
        parts.append(f"TTT {bpb.mean:.4f}{spread} BPB")
    if comparison is not None:
        parts.append(headline(comparison))
    broken = [gate.name for gate in judged if gate.passed is False]
    if broken:
        parts.append(f"fails: {', '.join(broken)}")
    elif done:
        parts.append("within every budget, ledgers verified")
    return " · ".join(parts)
