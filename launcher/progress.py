"""How far a training run or an evaluation is, how fast, and how long it still takes."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from golf.config import ScheduleConfig
from golf.records import EvalPaths, RunError, TrainPaths, read_json
from launcher.tails import JsonTail

MAX_POINTS = 512
RATE_STEPS = 50
"""Steps over which speed is taken."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where one command stands; what does not apply to it is None."""

    step: int | None = None
    num_steps: int | None = None
    loss: float | None = None
    losses: tuple[float, ...] = ()
    chunk: int | None = None
    num_chunks: int | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    tokens_per_s: float | None = None
    windows_per_s: float | None = None
    busy: tuple[float, ...] | None = None
    """Share of its time that each worker of a group was in a call, waiting for the others too."""
    hosts: tuple[str, ...] | None = None
    """Where each worker of a group runs."""
    alive: int | None = None
    """Workers of a group that live."""
    rebuilding: bool | None = None
    """A group lost workers and its successor is not ready yet; None where that is not so."""
    last_loss: str | None = None
    """Where and why the group was last rebuilt."""
    roles: tuple[str, ...] | None = None
    """`adapter` or `scorer`, of each worker of a pipelined schedule."""
    recoveries: int | None = None
    """Times that a group lost workers and was rebuilt; None where nothing was lost."""
    fraction: float | None = None
    eta_s: float | None = None


class TrainProgress:
    """Follows `metrics.jsonl` of one training run."""

    def __init__(self, paths: TrainPaths, schedule: ScheduleConfig) -> None:
        self._tail = JsonTail(paths.metrics)
        self._schedule = schedule
        self._recent: list[dict[str, Any]] = []
        self._losses: list[tuple[int, float]] = []
        self._stride = 1
        self._validated: dict[str, float | None] = {"val_loss": None, "val_bpb": None}

    def look(self) -> Progress:
        for line in self._tail.poll():
            self._take(line)
        if not self._recent:
            return Progress(num_steps=self._schedule.iterations)
        latest = self._recent[-1]
        num_steps, eta_s = self._forecast(latest)
        return Progress(
            step=latest["step"],
            num_steps=num_steps,
            loss=latest["train_loss"],
            losses=tuple(loss for _, loss in self._losses),
            val_loss=self._validated["val_loss"],
            val_bpb=self._validated["val_bpb"],
            tokens_per_s=self._tokens_per_s(),
            fraction=min(1.0, latest["step"] / max(num_steps, 1)),
            eta_s=eta_s,
        )

    def _take(self, line: dict[str, Any]) -> None:
        step = line["step"]
        if self._recent and step <= self._recent[-1]["step"]:  # resumed from a checkpoint
            self._recent.clear()
            self._losses = [point for point in self._losses if point[0] < step]
        self._recent = [*self._recent[-RATE_STEPS:], line]
        if step % self._stride == 0:
            self._losses.append((step, line["train_loss"]))
        if len(self._losses) > MAX_POINTS:
            self._stride *= 2
            self._losses = [point for point in self._losses if point[0] % self._stride == 0]
        for key in self._validated:
            self._validated[key] = line.get(key, self._validated[key])

    def _forecast(self, latest: dict[str, Any]) -> tuple[int, float]:
        """Steps in all and seconds left, by whichever of steps and clock ends first."""
        step: int = latest["step"]
        elapsed_ms: float = latest["elapsed_ms"]
        num_steps: int = self._schedule.iterations
        step_ms = self._step_ms()
        budget_ms = 1000 * self._schedule.max_wallclock_seconds
        if budget_ms and step_ms:
            num_steps = min(num_steps, step + int(max(0.0, budget_ms - elapsed_ms) / step_ms))
        return num_steps, (num_steps - step) * step_ms / 1000

    def _step_ms(self) -> float:
        first, last = self._recent[0], self._recent[-1]
        if last["step"] == first["step"]:
            first = {"step": 0, "elapsed_ms": 0.0}
        elapsed_ms: float = last["elapsed_ms"] - first["elapsed_ms"]
        num_steps: int = last["step"] - first["step"]
        return elapsed_ms / num_steps

    def _tokens_per_s(self) -> float | None:
        latest = self._recent[-1]
        step_ms = self._step_ms()
        tokens_per_step: float = latest["tokens"] / latest["step"]
        return 1000 * tokens_per_step / step_ms if step_ms else None


def eval_progress(paths: EvalPaths) -> Progress:
    """Read `progress.json` of an evaluation under way."""
    try:
        raw = read_json(paths.progress)
    except RunError:
        raw = None
    if not raw:
        return Progress()
    elapsed_s, tokens, num_tokens = raw["elapsed_s"], raw["tokens"], raw["num_tokens"]
    speed = tokens / elapsed_s if elapsed_s and tokens else None
    windows = raw.get("windows")
    return Progress(
        chunk=raw["chunk"],
        num_chunks=raw["num_chunks"],
        val_loss=raw["val_loss"],
        val_bpb=raw["val_bpb"],
        tokens_per_s=speed,
        windows_per_s=windows / elapsed_s if elapsed_s and windows else None,
        **_group(raw.get("workers") or [], raw.get("recoveries") or []),
        fraction=tokens / num_tokens if num_tokens else None,
        eta_s=(num_tokens - tokens) / speed if speed else None,
    )


def _group(workers: list[dict[str, Any]], recoveries: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known of a group of workers; nothing of an evaluation without one."""
    fields: dict[str, Any] = {}
    if workers:
        fields["busy"] = tuple(worker["busy"] for worker in workers)
        fields["hosts"] = tuple(worker["host"] for worker in workers)
        fields["alive"] = sum(worker.get("alive", True) for worker in workers)
        if "role" in workers[0]:
            fields["roles"] = tuple(worker["role"] for worker in workers)
    if recoveries:
        fields["recoveries"] = len(recoveries)
        fields["rebuilding"] = recoveries[-1]["rebuild_s"] is None or None
        last = recoveries[-1]
        fields["last_loss"] = f"in chunk {last['chunk'] + 1}: {last['cause']}"
    return fields


def thin(values: tuple[float, ...], count: int) -> list[float]:
    """At most `count` values that stand for all: means of equal runs of them."""
    if len(values) <= count:
        return list(values)
    edges = [index * len(values) // count for index in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]


def without_loss_history(progress: Progress) -> dict[str, Any]:
    """As plain values for machines, which can read `metrics.jsonl` itself."""
    fields = dataclasses.asdict(progress)
    del fields["losses"]
    return {key: value for key, value in fields.items() if value is not None}
