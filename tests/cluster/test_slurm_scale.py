"""Two hundred seeds: how often Slurm is called for them, and that all of them end well."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest
from cluster_lab import PROFILE, ClusterLab
from lab import stage
from slurm_site import SYSTEM_PATH

from launcher.experiment import Experiment
from launcher.stage import Command, Stage
from launcher.states import ACTIVE, State
from launcher.submit import read_statuses, submit_missing

POLL_S = 2.0
LIMIT_S = 120.0
NUM_EVALUATED = 20
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
COUNTED = """#!/bin/sh
echo {name} >>{calls}
exec {real} "$@"
"""


class Calls:
    """Counts every call of Slurm's commands, of the launcher's and of the jobs' own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._log = folder / "calls"
        for name in COMMANDS:
            real = shutil.which(name, path=SYSTEM_PATH)
            path = folder / name
            path.write_text(COUNTED.format(name=name, calls=self._log, real=real))
            path.chmod(0o755)

    def take(self) -> collections.Counter[str]:
        """Calls since the last time."""
        if not self._log.exists():
            return collections.Counter()
        taken = self._log.rename(self._log.with_suffix(".taken"))
        return collections.Counter(taken.read_text().split())


@pytest.fixture
def calls(lab: ClusterLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    counted = Calls(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{counted.folder}{os.pathsep}{os.environ['PATH']}")
    return counted


def quick(seed: int) -> list[Stage]:
    """Stages that do nothing; evaluations for the first seeds, for the sake of time."""
    nothing = Command(name="work", argv=("true",))
    stages = [
        stage(seed, "train", nothing),
        stage(seed, "eval", nothing, after=[f"{seed}/train"]),
    ]
    return stages if seed < NUM_EVALUATED else stages[:1]


@dataclasses.dataclass
class Run:
    experiment: Experiment
    submitting: collections.Counter[str]
    watching: collections.Counter[str]
    num_polls: float
    """Polling intervals that passed while watching."""


def run(lab: ClusterLab, calls: Calls, num_seeds: int) -> Run:
    slurm = dataclasses.replace(PROFILE.slurm, poll_seconds=POLL_S, slowest_poll_seconds=POLL_S)
    profile = dataclasses.replace(PROFILE, slurm=slurm)
    experiment = lab.register([s for n in range(num_seeds) for s in quick(n)], profile=profile)
    executor = lab.executor(experiment, profile)
    calls.take()
    submit_missing(experiment, executor)
    submitting = calls.take()
    began = time.monotonic()
    while True:
        statuses = read_statuses(experiment, executor, time.time())
        if not ACTIVE & {status.state for status in statuses.values()}:
            break
        assert time.monotonic() - began < LIMIT_S, collections.Counter(
            status.state for status in statuses.values()
        )
        time.sleep(0.3)
    assert {status.state for status in statuses.values()} == {State.DONE}
    num_polls = (time.monotonic() - began) / POLL_S
    return Run(experiment, submitting, calls.take(), num_polls)


def test_two_hundred_seeds_end_well_with_no_more_calls_of_slurm_than_three(
    lab: ClusterLab, calls: Calls
) -> None:
    few, many = run(lab, calls, 3), run(lab, calls, 200)
    assert few.submitting["sbatch"] == 6
    # Arrays of 128 at most, as this site wants them, and one of evaluations.
    assert many.submitting["sbatch"] == 3
    ids = {job.job_id.partition("_")[0] for job in many.experiment.submissions().values()}
    assert len(ids) == 3
    for each in (few, many):
        assert set(each.watching) == {"squeue"}
        assert each.watching["squeue"] <= each.num_polls + 2
