"""How a stage stands: one set of states, each told with its evidence.

The truth is taken in this order:

1. the stage's own `status.json`, when it says that it has ended;
2. the executor's word on the job, where it rules over it as Slurm does: a job that it has ended has
   no process left, and one that it will start again outlives what an earlier attempt said;
3. the process that wrote `status.json`, where it runs on this machine, or else its heartbeat;
4. the executor's word on the job, for a stage that has not begun to speak.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from golf.records import StagePaths, read_json
from launcher.processes import is_alive

HEARTBEAT_LIMIT_S = 60.0
"""A stage on another machine that has been silent for longer counts as lost."""
FULL_BYTES = 64 * 1024
"""With less disk than this a stage could not even say why it failed."""
SUBMISSION_LIMIT_S = 30.0
"""A launcher that announced a job and has not named it after this long was interrupted."""


class State(StrEnum):
    """What a stage, or the run of a seed, can be."""

    PLANNED = "planned"
    """Registered, not submitted."""
    WAITING = "waiting"
    """Submitted; waits for another stage or for a free place."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Never ran, because what it needs failed."""
    LOST = "lost"
    """Ended without a word: killed outright, or its machine went down."""


TERMINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.SKIPPED, State.LOST})
BAD = TERMINAL - {State.DONE}
ACTIVE = frozenset({State.WAITING, State.RUNNING})


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A state, who says so, and when it was so."""

    state: State
    evidence: str
    seen_at: float
    """Seconds since the epoch."""
    reason: str = ""
    rules: bool = False
    """Whoever says so starts and ends the job's processes, whatever machine they are on."""
    began_at: float | None = None
    """Start of the job's present attempt; what its stage said before then is out of date."""

    def age_s(self, now: float) -> float:
        return max(0.0, now - self.seen_at)


@dataclass(frozen=True, kw_only=True)
class CommandRecord:
    """A command that has ended in the latest attempt of a stage."""

    name: str
    exit_code: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """A stage as seen once."""

    observation: Observation
    reason: str = ""
    command: str | None = None
    """The command that runs, or ran last."""
    exit_code: int | None = None
    attempt: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    commands: tuple[CommandRecord, ...] = ()
    pid: int | None = None

    @property
    def state(self) -> State:
        return self.observation.state


def read_status(
    paths: StagePaths,
    job: Observation | None,
    now: float,
    submission_limit_s: float = SUBMISSION_LIMIT_S,
) -> StageStatus:
    """Judge a stage by its own file, its process and, last, its `job` as the executor sees it.

    Who holds the experiment's lock knows that nobody is submitting: `submission_limit_s` = 0.
    """
    status = _judge(paths, job, now, submission_limit_s)
    wrong = status.state in (State.FAILED, State.LOST)
    full = os.strerror(errno.ENOSPC)
    if wrong and full not in status.reason and _free_bytes(paths.root) < FULL_BYTES:
        return dataclasses.replace(status, reason=f"{status.reason}; {full} in {paths.root}")
    return status


def _free_bytes(folder: Path) -> int:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    disk = os.statvfs(there)
    return disk.f_bavail * disk.f_frsize


def _judge(
    paths: StagePaths, job: Observation | None, now: float, submission_limit_s: float
) -> StageStatus:
    raw = read_json(paths.status)
    if raw is None:
        return _unspoken({}, job, now, submission_limit_s)
    state = State(raw["state"])
    if job is not None and job.rules and state is not State.DONE and raw.get("pid") is not None:
        ruled = _ruled(raw, state, job)
        if ruled is not None:
            return ruled
    if state in TERMINAL:
        return _told(raw, state, "status.json", raw["updated_at"])
    if raw.get("pid") is None:
        return _unspoken(raw, job, now, submission_limit_s)
    if raw["host"] != socket.gethostname():
        return _judge_by_heartbeat(raw, state, now)
    if is_alive(raw["pid"], raw["updated_at"]):
        return _told(raw, state, f"process {raw['pid']} on this machine", now)
    # It may have written its last word between our reading and our looking for the process.
    latest = read_json(paths.status)
    if latest != raw:
        return _judge(paths, job, now, submission_limit_s)
    return _lost(raw, f"process {raw['pid']} is gone", now)


def _ruled(raw: dict[str, Any], state: State, job: Observation) -> StageStatus | None:
    """What the executor's word adds to the stage's own; None where that one stands."""
    if job.state in ACTIVE:
        if job.began_at is not None and raw["updated_at"] < job.began_at:
            # An earlier attempt said it. The job waits for its next start, or is just starting.
            return _told({**raw, "reason": job.reason}, State.WAITING, job.evidence, job.seen_at)
        if state is State.CANCELLED:
            word = {**raw, "reason": f"{raw['reason']}; its job goes on or ends now"}
            return _told(word, State.WAITING, job.evidence, job.seen_at)
        if state is State.RUNNING:
            return _told(raw, state, job.evidence, max(job.seen_at, raw["updated_at"]))
        return None
    if state is State.RUNNING or (state is State.CANCELLED and job.state is not State.CANCELLED):
        return _ended(raw, job)
    if state is State.FAILED and job.reason:
        return _told({**raw, "reason": f"{raw['reason']}; {job.reason}"}, state, job.evidence,
                     job.seen_at)  # fmt: skip
    return None


def _ended(raw: dict[str, Any], job: Observation) -> StageStatus:
    """A stage that could not say its last word, as its job ended."""
    if job.state is State.DONE:
        return _lost(raw, f"{job.evidence}, but it left no result", job.seen_at)
    command = raw.get("command")
    where = f" in {command}" if command else ""
    reason = f"{job.reason}{where}" if job.reason else f"ended{where}"
    return _told({**raw, "reason": reason}, job.state, job.evidence, job.seen_at)


def _judge_by_heartbeat(raw: dict[str, Any], state: State, now: float) -> StageStatus:
    silent_s = now - raw["updated_at"]
    if silent_s <= HEARTBEAT_LIMIT_S:
        return _told(raw, state, f"heartbeat from {raw['host']}", raw["updated_at"])
    return _lost(raw, f"no heartbeat from {raw['host']} for {silent_s:.0f} s", raw["updated_at"])


def _unspoken(
    raw: dict[str, Any], job: Observation | None, now: float, submission_limit_s: float
) -> StageStatus:
    """A stage that has not begun; `raw` is empty or the launcher's note of its submission."""
    if job is not None and job.state in ACTIVE:
        reason = job.reason or job.evidence
        return _told({**raw, "reason": reason}, State.WAITING, job.evidence, job.seen_at)
    if job is not None and job.rules:
        return _ended(raw, job)
    if job is not None:
        return _lost(raw, job.evidence, job.seen_at)
    announced = raw.get("state") == State.WAITING
    if announced and now - raw["updated_at"] < submission_limit_s:
        return _told(raw, State.WAITING, "a launcher is submitting it", raw["updated_at"])
    evidence = "its submission was interrupted" if announced else "no job was submitted"
    return _told({**raw, "reason": ""}, State.PLANNED, evidence, now)


def _lost(raw: dict[str, Any], evidence: str, seen_at: float) -> StageStatus:
    command = raw.get("command")
    what = f"it vanished in {command}" if command else "it vanished before its first command"
    return _told({**raw, "reason": f"{what}: {evidence}"}, State.LOST, evidence, seen_at)


def _told(raw: dict[str, Any], state: State, evidence: str, seen_at: float) -> StageStatus:
    return StageStatus(
        observation=Observation(state=state, evidence=evidence, seen_at=seen_at),
        reason=raw.get("reason", ""),
        command=raw.get("command"),
        exit_code=raw.get("exit_code"),
        attempt=raw.get("attempt", 0),
        started_at=raw.get("started_at"),
        ended_at=raw.get("ended_at") or (raw.get("updated_at") if state is State.LOST else None),
        commands=tuple(CommandRecord(**record) for record in raw.get("commands", ())),
        pid=raw.get("pid"),
    )


def run_state(stages: Iterable[State]) -> State:
    """The state of a seed's run from those of its stages, in their order."""
    states = list(stages)
    for state in states:
        if state is not State.DONE:
            return state
    return State.DONE
