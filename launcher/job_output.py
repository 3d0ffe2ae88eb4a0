"""What the scheduler's jobs printed outside their stages' own logs.

Setup lines, srun's and the container runtime's errors, and the notes of the batch script: the only
words of a job whose stage never began.
"""

from __future__ import annotations

from pathlib import Path

from golf.records import read_lines
from launcher.experiment import Experiment

PATTERNS = ("*-{}.out", "{}_0_log.out", "{}_0_log.err")
"""Names of a job's output in `jobs/`, as the executors choose them; the latter two by submitit."""


def job_outputs(experiment: Experiment, key: str) -> list[Path]:
    """Outputs of a stage's jobs, those of the latest job last."""
    lines = read_lines(experiment.paths.submissions)
    ids = [line["job_id"] for line in lines if line["stage"] == key and line["job_id"]]
    return [
        path
        for job_id in ids
        for pattern in PATTERNS
        for path in experiment.paths.jobs.glob(pattern.format(job_id))
    ]
