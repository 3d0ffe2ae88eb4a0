"""A job of the local executor as plain values: what it is asked, and whether it still runs."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from launcher.experiment import Submission
from launcher.processes import is_alive
from launcher.states import Observation, State


@dataclass(frozen=True, kw_only=True)
class LocalRequest:
    """A stage to run on this machine."""

    experiment: str
    """The experiment's folder."""
    key: str
    after: tuple[str, ...]
    """Keys of the stages that must be done first."""
    num_cores: int
    num_gpus: int
    time_limit_s: float
    slots_folder: str
    machine_cores: int
    machine_gpus: tuple[str, ...]


def observe(submission: Submission, now: float) -> Observation:
    """Whether the job's process runs; its id is that of submitit's controller."""
    if submission.host != socket.gethostname():
        evidence = f"submitted on {submission.host}, which this machine cannot ask"
        return Observation(state=State.WAITING, evidence=evidence, seen_at=submission.submitted_at)
    job = f"submitit job {submission.job_id}"
    if is_alive(int(submission.job_id), submission.submitted_at):
        return Observation(state=State.RUNNING, evidence=f"{job} runs", seen_at=now)
    return Observation(state=State.LOST, evidence=f"{job} has ended", seen_at=now)
