"""What changed between two looks, as events: JSON lines for machines, plain lines for logs.

Events and their fields, beside `event` and `time` (seconds since the epoch):

- `state`: a stage changed: `stage` (its key), `seed`, `state`, `command`, `reason`, `evidence`,
  `attempt`; where it went wrong also `log` and `log_tail`.
- `progress`: a running seed: `seed`, `variant` (empty where nothing is swept), `stage`, `command`,
  and what applies of `step`, `num_steps`,
  `loss`, `chunk`, `num_chunks`, `val_loss`, `val_bpb`, `tokens_per_s`, `fraction`, `eta_s`;
  of an evaluation also `windows_per_s`, of one over a group of workers `busy`, `hosts`, `alive`,
  `recoveries`, `last_loss`, `roles` where some adapt and others score and, while a lost group is
  replaced, `rebuilding`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from launcher import figures
from launcher.progress import without_loss_history
from launcher.states import State
from launcher.watch import SeedView, StageView, View

PROGRESS_EVERY_S = 10.0


class EventStream:
    """Turns views into events; remembers what it has told."""

    def __init__(self, progress_every_s: float = PROGRESS_EVERY_S) -> None:
        self._progress_every_s = progress_every_s
        self._told: dict[str, tuple[Any, ...]] = {}
        self._progress_at: dict[str, float] = {}
        self._silence_told = ""

    def take(self, view: View) -> Iterator[dict[str, Any]]:
        """The events that this view adds to those before."""
        yield from self._silence(view)
        for stage in view.stages:
            yield from self._stage(stage, view.now)
        for seed in view.seeds:
            yield from self._progress(seed, view.now)

    def _silence(self, view: View) -> Iterator[dict[str, Any]]:
        """That the scheduler does not answer, and that it does again; once each."""
        reason = view.silence.reason if view.silence is not None else ""
        if bool(reason) == bool(self._silence_told):
            return
        self._silence_told = reason
        text = reason or "the scheduler answers again"
        yield {"event": "notice", "time": view.now, "silent": bool(reason), "text": text}

    def _stage(self, stage: StageView, now: float) -> Iterator[dict[str, Any]]:
        status = stage.status
        facts = (status.state, status.command, status.reason, status.attempt)
        if self._told.get(stage.key) == facts:
            return
        self._told[stage.key] = facts
        event: dict[str, Any] = {"event": "state", "time": now, **_facts(stage)}
        if stage.log_tail or status.state in (State.FAILED, State.LOST):
            event |= {"log": str(stage.log), "log_tail": list(stage.log_tail)}
        yield event

    def _progress(self, seed: SeedView, now: float) -> Iterator[dict[str, Any]]:
        due = self._progress_at.get(seed.stage.key, float("-inf")) + self._progress_every_s
        if seed.state is not State.RUNNING or seed.progress.fraction is None or now < due:
            return
        self._progress_at[seed.stage.key] = now
        yield {
            "event": "progress",
            "time": now,
            "seed": seed.seed,
            "variant": seed.variant,
            "stage": seed.stage.key,
            "command": seed.stage.status.command,
            **without_loss_history(seed.progress),
        }


def plain_view(view: View) -> dict[str, Any]:
    """A view as nested plain values."""
    return {
        "experiment": view.name,
        "time": view.now,
        "over": view.is_over,
        "silence": None if view.silence is None else dataclasses.asdict(view.silence),
        "seeds": [
            {
                "seed": seed.seed,
                "variant": seed.variant,
                "state": str(seed.state),
                "stage": seed.stage.key,
                "command": seed.stage.status.command,
                "elapsed_s": seed.elapsed_s,
                "final_loss": seed.final_loss,
                "final_bpb": seed.final_bpb,
                **without_loss_history(seed.progress),
            }
            for seed in view.seeds
        ],
        "stages": [
            {
                **_facts(stage),
                "age_s": stage.status.observation.age_s(view.now),
                "attempts": [dataclasses.asdict(attempt) for attempt in stage.attempts],
            }
            for stage in view.stages
        ],
    }


def _facts(stage: StageView) -> dict[str, Any]:
    status = stage.status
    return {
        "stage": stage.key,
        "seed": stage.seed,
        "state": str(status.state),
        "command": status.command,
        "reason": status.reason,
        "evidence": status.observation.evidence,
        "attempt": status.attempt,
    }


def plain_lines(event: dict[str, Any]) -> Iterator[str]:
    """An event as text for a log file or a pipe."""
    stamp = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    if event["event"] == "notice":
        yield f"{stamp}  {event['text']}"
        return
    if event["event"] == "progress":
        yield f"{stamp}  {event['stage']:<12} {_progress_text(event)}"
        return
    doing = event["command"] if event["state"] == State.RUNNING else None
    words = [event["state"], doing, event["reason"]]
    attempt = f"(attempt {event['attempt']})" if event["attempt"] > 1 else None
    yield f"{stamp}  {event['stage']:<12} {'  '.join(filter(None, [*words, attempt]))}"
    for line in event.get("log_tail", ()):
        yield f"{'':10}| {line}"
    if "log" in event:
        yield f"{'':10}whole log: {event['log']}"


def _progress_text(event: dict[str, Any]) -> str:
    words = [event["command"] or ""]
    if "chunk" in event:
        words.append(f"chunk {event['chunk']}/{event['num_chunks']}")
    elif "step" in event:
        words.append(f"step {event['step']}/{event['num_steps']}")
    if "loss" in event:
        words.append(f"loss {event['loss']:.4f}")
    if "val_bpb" in event:
        words.append(f"{event['val_bpb']:.4f} BPB")
    if "tokens_per_s" in event:
        words.append(f"{figures.rate(event['tokens_per_s'])} tok/s")
    if "busy" in event:
        words += _busy_words(event["busy"], event.get("roles"))
    if "recoveries" in event:
        words.append(f"{event['recoveries']} recovered")
    if "rebuilding" in event:
        words.append(f"rebuilding: {event['last_loss']}")
    if "eta_s" in event:
        words.append(f"ETA {figures.duration(event['eta_s'])}")
    return "  ".join(words)


def _busy_words(busy: Sequence[float], roles: Sequence[str] | None) -> Iterator[str]:
    """How busy the workers are, those of one role together."""
    of_role: dict[str, list[str]] = {}
    for share, role in zip(busy, roles or ["worker"] * len(busy), strict=True):
        of_role.setdefault(role, []).append(f"{share:.0%}")
    for role, shares in of_role.items():
        yield f"{role}s {' '.join(shares)}"
