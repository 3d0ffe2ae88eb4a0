"""The last word on an experiment: one object, from which terminal, Markdown and JSON are made.

1. Every registered seed is reported from the files its stages left, failed ones too, with the
   reason and the log.
2. Figures are summarized over the seeds that are done.
3. Budgets and the ledger are judged on the worst seed, not on the mean.

`report.json` is this object as plain values; `schema` grows when a field changes its meaning or
goes, not when one is added.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from golf.config import BudgetConfig
from golf.records import read_json, replace_file, write_json
from launcher.executors.base import Executor
from launcher.experiment import Experiment, ExperimentPaths
from launcher.significance import Summary, summarize
from launcher.states import StageStatus, State, run_state
from launcher.submit import read_statuses
from launcher.tails import tail_lines

SCHEMA = "golf-launch/report/1"
COLUMNS = {
    "post_ema": "post-EMA",
    "round_trip": "round trip",
    "sliding": "sliding",
    "ttt": "TTT",
}
"""The evaluations of a seed in the order of the pipeline, and what people call them."""
GATE_EXIT = 3
"""Exit code of a command that finished and found a budget or the ledger violated."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One evaluation over the whole validation set."""

    val_loss: float
    """Nats a token."""
    val_bpb: float
    """Bits a byte."""


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """One registered seed; what it has not reached is None."""

    seed: int
    state: State
    reason: str
    log: str
    exit_code: int | None
    scores: dict[str, Score | None]
    steps: int | None
    train_seconds: float | None
    """Training steps, as the wall-clock budget counts them."""
    last_step_began_s: float | None
    """On the same clock; as in the challenge, the step that uses up the time is finished."""
    eval_seconds: float | None
    """The TTT evaluation."""
    model_bytes: int | None
    code_bytes: int | None
    total_bytes: int | None
    ledger: Literal["verified", "violated", "not verified"]
    schedule: str | None
    attention: str | None
    device: str | None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A limit held against the worst seed."""

    name: str
    figure: float | None
    limit: float | None
    unit: str
    passed: bool | None
    """None where nothing was measured."""
    seed: int | None
    """The seed of the figure."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """An experiment's results."""

    schema: str
    name: str
    job: str
    created_at: float
    collected_at: float
    git: dict[str, Any] | None
    seeds: tuple[SeedReport, ...]
    summaries: dict[str, dict[str, Summary | None]]
    """By column, then by `val_loss` and `val_bpb`, over the seeds that are done."""
    gates: tuple[Gate, ...]
    verdict: str
    exit_code: int

    def plain(self) -> dict[str, Any]:
        """As nested plain values, for `report.json`."""
        return dataclasses.asdict(self)


def collect(experiment: Experiment, executor: Executor) -> Report:
    """Read an experiment's results as they stand now."""
    now = time.time()
    statuses = read_statuses(experiment, executor, now)
    seeds = tuple(_seed(experiment, seed, statuses) for seed in experiment.seeds)
    done = tuple(seed for seed in seeds if seed.state is State.DONE)
    summaries = {column: _summaries(done, column) for column in COLUMNS}
    gates = _gates(seeds, experiment.job().budget)
    exit_code = _exit_code(seeds, gates, statuses)
    return Report(
        schema=SCHEMA,
        name=experiment.name,
        job=experiment.registry["job"],
        created_at=experiment.created_at,
        collected_at=now,
        git=experiment.registry["git"],
        seeds=seeds,
        summaries=summaries,
        gates=gates,
        verdict=_verdict(seeds, summaries, gates),
        exit_code=exit_code,
    )


def write(report: Report, paths: ExperimentPaths) -> None:
    """Put `report.json` and `report.md` into the experiment's folder."""
    from launcher.report_tables import markdown

    write_json(paths.report_json, report.plain())
    with replace_file(paths.report_md) as temporary:
        temporary.write_text(markdown(report))


def _seed(experiment: Experiment, seed: int, statuses: dict[str, StageStatus]) -> SeedReport:
    paths = experiment.paths
    stages = experiment.stages_of(seed)
    current = next((s for s in stages if statuses[s.key].state is not State.DONE), stages[-1])
    train = _result(paths.train(seed).result)
    ttt = _result(paths.evaluation(seed, "ttt").result)
    sizes = _result(paths.artifact_sizes(seed))
    return SeedReport(
        seed=seed,
        state=run_state(statuses[stage.key].state for stage in stages),
        reason=statuses[current.key].reason,
        log=str(paths.stage(current.key).log),
        exit_code=statuses[current.key].exit_code,
        scores={
            "post_ema": _score(train),
            "round_trip": _score(_result(paths.round_trip(seed).result)),
            "sliding": _score(_result(paths.evaluation(seed, "sliding").result)),
            "ttt": _score(ttt),
        },
        steps=train.get("steps"),
        train_seconds=train.get("train_seconds"),
        last_step_began_s=_last_step_began_s(paths.train(seed).metrics) if train else None,
        eval_seconds=ttt.get("seconds"),
        model_bytes=sizes.get("model_bytes"),
        code_bytes=sizes.get("code_bytes"),
        total_bytes=sizes.get("total_bytes"),
        ledger=_ledger(statuses[stages[-1].key]),
        schedule=ttt.get("schedule"),
        attention=ttt.get("attention") or train.get("attention"),
        device=train.get("device"),
    )


def _result(path: Path) -> dict[str, Any]:
    return read_json(path) or {}


def _last_step_began_s(metrics: Path) -> float:
    lines = tail_lines(metrics, 2)
    return float(json.loads(lines[0])["elapsed_ms"]) / 1000 if len(lines) == 2 else 0.0


def _score(result: dict[str, Any]) -> Score | None:
    if result.get("val_loss") is None or result.get("val_bpb") is None:
        return None
    return Score(val_loss=result["val_loss"], val_bpb=result["val_bpb"])


def _ledger(status: StageStatus) -> Literal["verified", "violated", "not verified"]:
    codes = [record.exit_code for record in status.commands if record.name == "verify"]
    if not codes:
        return "not verified"
    return {0: "verified", GATE_EXIT: "violated"}.get(codes[-1], "not verified")  # type: ignore[return-value]


def _summaries(seeds: tuple[SeedReport, ...], column: str) -> dict[str, Summary | None]:
    scores = [score for seed in seeds if (score := seed.scores[column]) is not None]
    return {
        "val_loss": summarize([score.val_loss for score in scores]),
        "val_bpb": summarize([score.val_bpb for score in scores]),
    }


def _gates(seeds: tuple[SeedReport, ...], budget: BudgetConfig) -> tuple[Gate, ...]:
    return (
        _gate(seeds, "artifact", lambda seed: seed.total_bytes, budget.artifact_bytes, "bytes"),
        _gate(
            seeds,
            "training, last step begun",
            lambda seed: seed.last_step_began_s,
            budget.train_seconds,
            "s",
        ),
        _gate(seeds, "TTT evaluation", lambda seed: seed.eval_seconds, budget.eval_seconds, "s"),
        _ledger_gate(seeds),
    )


def _gate(
    seeds: tuple[SeedReport, ...],
    name: str,
    measure: Callable[[SeedReport], float | None],
    limit: float,
    unit: str,
) -> Gate:
    figures = [(figure, seed.seed) for seed in seeds if (figure := measure(seed)) is not None]
    if not figures:
        return Gate(name=name, figure=None, limit=limit, unit=unit, passed=None, seed=None)
    figure, seed = max(figures)
    return Gate(name=name, figure=figure, limit=limit, unit=unit, passed=figure <= limit, seed=seed)


def _ledger_gate(seeds: tuple[SeedReport, ...]) -> Gate:
    evaluated = [seed for seed in seeds if seed.scores["ttt"] is not None]
    violated = [seed.seed for seed in evaluated if seed.ledger == "violated"]
    verified = sum(seed.ledger == "verified" for seed in evaluated)
    passed = None if not evaluated else verified == len(evaluated)
    return Gate(
        name="ledgers verified",
        figure=float(verified),
        limit=float(len(evaluated)),
        unit="seeds",
        passed=passed,
        seed=violated[0] if violated else None,
    )


def _exit_code(
    seeds: tuple[SeedReport, ...], gates: tuple[Gate, ...], statuses: dict[str, StageStatus]
) -> int:
    """0 done and valid, 1 a run failed, 3 a gate failed, 4 seeds are missing."""
    failures = (State.FAILED, State.LOST)
    unprepared = "prepare" in statuses and statuses["prepare"].state in failures
    failed = [seed for seed in seeds if seed.state in failures]
    if unprepared or any(seed.exit_code != GATE_EXIT for seed in failed):
        return 1
    if any(seed.state is not State.DONE and seed not in failed for seed in seeds):
        return 4
    return GATE_EXIT if failed or any(gate.passed is False for gate in gates) else 0


def _verdict(
    seeds: tuple[SeedReport, ...],
    summaries: dict[str, dict[str, Summary | None]],
    gates: tuple[Gate, ...],
) -> str:
    done = [seed for seed in seeds if seed.state is State.DONE]
    parts = [f"{len(done)} of {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} done"]
    others = [f"{seed.seed} {seed.state}" for seed in seeds if seed.state is not State.DONE]
    if others:
        parts.append(", ".join(others[:6]) + (" …" if len(others) > 6 else ""))
    bpb = summaries["ttt"]["val_bpb"]
    if bpb is not None:
        spread = f" ± {bpb.half_width:.4f} (95%)" if bpb.half_width is not None else ""
        parts.append(f"TTT {bpb.mean:.4f}{spread} BPB")
    broken = [gate.name for gate in gates if gate.passed is False]
    if broken:
        parts.append(f"fails: {', '.join(broken)}")
    elif done:
        parts.append("within every budget, ledgers verified")
    return " · ".join(parts)
