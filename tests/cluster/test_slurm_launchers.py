"""Launchers that die at the worst moments, and two of them on one experiment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_lab import ClusterLab
from lab import train_and_eval

from launcher.errors import LaunchError
from launcher.experiment import Experiment
from launcher.states import State
from launcher.submit import submit_missing

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = """
import os, sys, time
from pathlib import Path
from launcher.executors import slurm, slurm_submit
from launcher.executors.choice import executor_of
from launcher.experiment import Experiment
from launcher.submit import submit_missing
{meddle}
experiment = Experiment.open(Path({root!r}))
submit_missing(experiment, executor_of(experiment))
"""
DIES_BEFORE_SBATCH = """
slurm_submit.ScriptExecutor.submit_script = lambda *_: os.kill(os.getpid(), 9)
"""
DIES_AFTER_SBATCH = """
Experiment.record_submission = lambda *_: os.kill(os.getpid(), 9)
"""
DIES_BETWEEN_STAGES = """
keep = Experiment.record_submission
def record_and_die(self, submission):
    keep(self, submission)
    os.kill(os.getpid(), 9)
Experiment.record_submission = record_and_die
"""
WAITS_BEFORE_SBATCH = """
submit = slurm_submit.ScriptExecutor.submit_script
def wait_and_submit(self, body):
    Path({here!r}).touch()
    while not Path({go!r}).exists():
        time.sleep(0.05)
    return submit(self, body)
slurm_submit.ScriptExecutor.submit_script = wait_and_submit
"""


def launch(experiment: Experiment, meddle: str) -> subprocess.Popen[bytes]:
    code = LAUNCHER.format(meddle=meddle, root=str(experiment.paths.root))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code], env=env)


def names_in_queue(lab: ClusterLab) -> list[str]:
    return lab.site.call("squeue", "-h", "-t", "all", "-o", "%j").stdout.split()


@pytest.mark.parametrize(
    ("dies", "recorded", "left_to_submit"),
    [
        (DIES_BEFORE_SBATCH, set(), ["1/train", "1/eval"]),
        (DIES_AFTER_SBATCH, set(), ["1/eval"]),
        (DIES_BETWEEN_STAGES, {"1/train"}, ["1/eval"]),
    ],
    ids=["before sbatch", "after sbatch", "between stages"],
)
def test_a_launcher_killed_at_any_moment_loses_and_doubles_nothing(
    dies: str, recorded: set[str], left_to_submit: list[str], lab: ClusterLab
) -> None:
    experiment = lab.register(train_and_eval(1, "import time; time.sleep(2)"))
    assert launch(experiment, dies).wait(timeout=60) == -signal.SIGKILL
    assert set(experiment.submissions()) == recorded
    executor = lab.executor(experiment)
    state = lab.statuses(experiment, executor)["1/train"].state
    assert state in (State.WAITING, State.RUNNING)
    assert [s.key for s in submit_missing(experiment, executor)] == left_to_submit
    ours = [name for name in names_in_queue(lab) if name.startswith(experiment.name)]
    assert sum(":train-1" in name for name in ours) == 1
    statuses = lab.wait_until_over(experiment, executor)
    assert {s.state for s in statuses.values()} == {State.DONE}
    assert {s.attempt for s in statuses.values()} == {1}


def test_two_launchers_on_one_experiment_exclude_each_other(lab: ClusterLab) -> None:
    here, go = (lab.runs.parent / name for name in ("here", "go"))
    experiment = lab.register(train_and_eval(1, "pass"))
    first = launch(experiment, WAITS_BEFORE_SBATCH.format(here=str(here), go=str(go)))
    try:
        lab.site.wait_until(here.exists, "the first launcher to be about to submit")
        executor = lab.executor(experiment)
        with pytest.raises(LaunchError, match=f"another launcher .process {first.pid} on"):
            submit_missing(experiment, executor)
        go.touch()
        assert first.wait(timeout=60) == 0
    finally:
        first.kill()
        first.wait()
    assert submit_missing(experiment, lab.executor(experiment)) == ()
    ours = [name for name in names_in_queue(lab) if name.startswith(experiment.name)]
    assert sorted(ours) == [f"{experiment.name}:eval-1", f"{experiment.name}:train-1"]
    statuses = lab.wait_until_over(experiment, executor)
    assert {s.state for s in statuses.values()} == {State.DONE}
