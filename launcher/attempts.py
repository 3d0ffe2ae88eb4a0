"""The attempts of a stage's jobs, as their batch scripts noted them in `attempts.jsonl`.

A job that is put back into the queue starts again under its own id; one that is submitted again
has a new one. Executors that never put a job back note nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from golf.records import StagePaths, read_lines

ENDS = {
    "requeued": "put back",
    "ended": "ended",
    "gave_up": "gave up",
    "setup_failed": "a setup line failed",
    "requeue_failed": "could not be put back",
}
"""The script's events that end an attempt, for people."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of one job."""

    job: str
    number: int
    """Of this job, from 1."""
    node: str
    began_at: float
    ended_at: float | None = None
    end: str = ""
    """How it ended; nothing while it runs, and for ever where its node was lost."""
    exit_code: int | None = None
    warned: bool = False
    """Told ahead of a time limit or a preemption."""


def read_attempts(paths: StagePaths) -> tuple[Attempt, ...]:
    """Every attempt of a stage, the first one first."""
    attempts: list[Attempt] = []
    for line in read_lines(paths.root / "attempts.jsonl"):
        if line["event"] == "started":
            attempts.append(
                Attempt(
                    job=line["job"],
                    number=line["attempt"],
                    node=line["node"],
                    began_at=line["time"],
                )
            )
        elif attempts:
            attempts[-1] = dataclasses.replace(attempts[-1], **_changes(line))
    return tuple(attempts)


def _changes(line: dict[str, Any]) -> dict[str, Any]:
    if line["event"] == "warned":
        return {"warned": True}
    return {
        "ended_at": line["time"],
        "end": ENDS.get(line["event"], line["event"]),
        "exit_code": line["exit_code"],
    }
