"""What the scheduler's jobs printed outside their stages' own logs.

Setup lines, srun's and the container runtime's errors, and the notes of the batch script: the only
words of a job whose stage never began.
"""

from __future__ import annotations

import re
from pathlib import Path

from golf.records import read_lines
from launcher.experiment import Experiment

NAME = re.compile(r"(?:.*-(?P<slurm>\d+(?:_\d+)?)\.out|(?P<local>\d+)_0_log\.(?:out|err))")
"""A job's output in `jobs/`, as the executors name it; the latter by submitit."""


def job_outputs(experiment: Experiment) -> dict[str, list[Path]]:
    """Outputs of each stage's jobs, those of the latest job last, by the stage's key."""
    by_id: dict[str, list[Path]] = {}
    folder = experiment.paths.jobs
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = NAME.fullmatch(path.name)
        if found:
            by_id.setdefault(found["slurm"] or found["local"], []).append(path)
    outputs: dict[str, list[Path]] = {}
    for line in read_lines(experiment.paths.submissions):
        outputs.setdefault(line["stage"], []).extend(by_id.get(line["job_id"] or "", []))
    return outputs
