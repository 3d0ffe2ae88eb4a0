"""`python -m launcher.executors.local_submit REQUESTS`: give stages to submitit's local executor.

submitit starts a job as a child in the caller's session, where Ctrl-C and the closing of the
terminal would reach it. So the launcher starts this short-lived process in a session of its own;
when it exits the jobs stand alone. It records each submission itself and holds the experiment's
lock, so that a launcher killed meanwhile loses no job and doubles none.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import submitit

from launcher.executors import local_stage
from launcher.experiment import Experiment, Submission

NO_TIMEOUT_MIN = 60 * 24 * 365
"""submitit counts from submission, waiting included; `local_stage` keeps the stage's limit."""


def submit_all(experiment: Experiment, requests: list[dict[str, Any]]) -> None:
    """Start one submitit job for each request and record it."""
    executor = submitit.LocalExecutor(folder=experiment.paths.jobs)
    executor.update_parameters(timeout_min=NO_TIMEOUT_MIN, name=experiment.name)
    for request in requests:
        job: submitit.Job[int] = executor.submit(local_stage.run, request)
        experiment.record_submission(
            Submission(
                stage=request["key"],
                executor="local",
                job_id=job.job_id,
                host=socket.gethostname(),
                submitted_at=time.time(),
            )
        )


if __name__ == "__main__":
    root, requests = json.loads(sys.stdin.read())
    submit_all(Experiment.open(Path(root)), requests)
