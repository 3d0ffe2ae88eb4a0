"""Asking Slurm: one call for all jobs of a user, not more often than a site likes.

1. `squeue` shows what waits and runs, and what ended in the last minutes.
2. Jobs that it shows no more are asked of `sacct`, once, where a site keeps accounts.
3. Answers are kept until the next call is due; calls come more rarely while nothing changes. If
   Slurm does not answer, the last answer stands, and says its age.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from launcher.executors.slurm_words import OVER

CALL_LIMIT_S = 30.0
SLOWER = 1.5
DEFAULT_ARRAY_LIMIT = 1001
"""MaxArraySize where a site does not set it; task numbers from 0 stay below it."""
FORMAT = "%i|%T|%S|%N|%j|%r"
"""Job, state, start, nodes, name; the reason last, because it is free text."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as Slurm tells it."""

    id: str
    """Of an array's task: `12_3`."""
    state: str
    reason: str = ""
    started_at: float | None = None
    nodes: str = ""
    name: str = ""
    source: str = "squeue"

    @property
    def is_over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All jobs of the user, by id, as they were at one time."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    asked_at: float | None = None
    """None: Slurm has never answered."""
    problem: str = ""
    """Why the latest call failed."""


class Queue:
    """Keeps the latest answer."""

    def __init__(self, poll_s: float, slowest_s: float) -> None:
        self._poll_s = poll_s
        self._slowest_s = slowest_s
        self._interval_s = poll_s
        self._due_at = float("-inf")
        self._answer = Answer()
        self._ended: dict[str, Job] = {}
        self._has_sacct = True
        self.num_calls = 0

    @property
    def last(self) -> Answer:
        """The latest answer, as old as it may be."""
        return self._answer

    def look(self, now: float) -> Answer:
        """The user's jobs, asked again if it is time."""
        if now < self._due_at:
            return self._answer
        before = self._answer
        self._answer = self._ask(now)
        changed = self._answer.jobs != before.jobs
        quiet = min(self._slowest_s, self._interval_s * SLOWER)
        self._interval_s = self._poll_s if changed else max(self._poll_s, quiet)
        self._due_at = now + self._interval_s
        return self._answer

    def forget(self) -> None:
        """Ask again at the next look, because we have just changed something."""
        self._due_at = float("-inf")
        self._interval_s = self._poll_s

    def gone(self, ids: Collection[str]) -> dict[str, Job]:
        """Jobs that squeue shows no more, as sacct tells them, where it can."""
        unknown = [job_id for job_id in ids if job_id not in self._ended]
        if unknown and self._has_sacct:
            self._ended |= self._ask_sacct(unknown)
        return {job_id: self._ended[job_id] for job_id in ids if job_id in self._ended}

    def release(self, ids: Collection[str]) -> None:
        """Let jobs start now that Slurm holds for a while; a refusal only leaves them waiting."""
        with contextlib.suppress(_NoAnswerError):
            self._call(["scontrol", "update", f"JobId={','.join(ids)}", "StartTime=now"])
        self.forget()

    def _ask(self, now: float) -> Answer:
        words = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all"]
        try:
            output = self._call([*words, f"--format={FORMAT}"])
        except _NoAnswerError as error:
            last = self._answer
            return Answer(jobs=last.jobs, asked_at=last.asked_at, problem=str(error))
        jobs = [_parse(line) for line in output.splitlines() if line.count("|") >= 5]
        return Answer(jobs={job.id: job for job in jobs}, asked_at=now)

    def _ask_sacct(self, ids: Collection[str]) -> dict[str, Job]:
        words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
        try:
            output = self._call([*words, f"--jobs={','.join(ids)}"])
        except _NoAnswerError as error:
            self._has_sacct = "disabled" not in str(error)
            return {}
        rows = [line.split("|") for line in output.splitlines()]
        return {
            job_id: Job(id=job_id, state=state.split()[0], source="sacct")
            for job_id, state in rows
            if state.split()[0] in OVER
        }

    def _call(self, words: list[str]) -> str:
        self.num_calls += 1
        return _call(words)


def array_limit() -> int:
    """The most tasks that the site lets an array have; Slurm's own default where it is silent."""
    try:
        told = _call(["scontrol", "show", "config"])
    except _NoAnswerError:
        return DEFAULT_ARRAY_LIMIT
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    return int(found[1]) if found else DEFAULT_ARRAY_LIMIT


def _call(words: list[str]) -> str:
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=CALL_LIMIT_S,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},  # seconds since the epoch
        )
    except FileNotFoundError:
        raise _NoAnswerError(f"{words[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise _NoAnswerError(f"{words[0]} gave no answer in {CALL_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        told = done.stderr.strip().splitlines()
        raise _NoAnswerError(told[-1] if told else f"{words[0]} exited {done.returncode}")
    return done.stdout


class _NoAnswerError(Exception):
    """Slurm's controller or database did not answer."""


def _parse(line: str) -> Job:
    job_id, state, started_at, nodes, name, reason = line.split("|", 5)
    return Job(
        id=job_id,
        state=state,
        reason=reason,
        started_at=float(started_at) if started_at.isdigit() else None,
        nodes=nodes,
        name=name,
    )
