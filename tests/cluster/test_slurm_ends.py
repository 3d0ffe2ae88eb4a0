"""How jobs end: each told as what it was, within two polling intervals, with the log's tail."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest
from cluster_lab import PROFILE, WAITS_FOR_STOP, ClusterLab
from lab import python, stage, train_and_eval

from launcher.attempts import read_attempts
from launcher.cli import main
from launcher.states import State
from launcher.submit import submit_missing

LAST = "the last words"
FAILS = f"print('{LAST}', flush=True)\nraise SystemExit(3)"
TAKES_TOO_MUCH = f"""
import time
print('{LAST}', flush=True)
block = bytearray(3 * 1024**3)
time.sleep(60)
"""
WORKS = f"import time\nprint('{LAST}', flush=True)\ntime.sleep(300)"
IGNORES_SIGNALS = f"""
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
print('{LAST}', flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [(FAILS, "work exited with code 3"), (TAKES_TOO_MUCH, "ran out of memory")],
    ids=["failed", "out of memory"],
)
def test_what_a_stage_died_of_is_told(code: str, reason: str, lab: ClusterLab) -> None:
    experiment = lab.register(train_and_eval(1, code))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    told = lab.told_within_two_polls(experiment, executor, "1/train")
    assert told.status.state is State.FAILED
    assert reason in told.status.reason
    assert told.log_tail[-1] == LAST or LAST in told.log_tail
    assert told.num_attempts == 1, "what fails for a reason is not retried"


@pytest.mark.parametrize("victim", ["training", "stage"])
def test_a_process_killed_outright_on_its_node_is_a_failure(victim: str, lab: ClusterLab) -> None:
    code = f"import os\nprint('pid', os.getpid(), os.getppid(), flush=True)\n{WORKS}"
    experiment = lab.register(train_and_eval(1, code))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", LAST)
    [line] = [s for s in lab.log(experiment, "1/train").splitlines() if s.startswith("pid")]
    pids = dict(zip(("training", "stage"), map(int, line.split()[1:]), strict=True))
    os.kill(pids[victim], signal.SIGKILL)
    told = lab.told_within_two_polls(experiment, executor, "1/train")
    assert told.status.state is State.FAILED
    expected = {"training": "work was killed by SIGKILL", "stage": "Slurm says FAILED"}
    assert expected[victim] in told.status.reason
    assert LAST in told.log_tail
    assert told.num_attempts == 1


def test_a_job_cancelled_by_somebody_s_scancel_is_told_as_that(lab: ClusterLab) -> None:
    experiment = lab.register(train_and_eval(1, WORKS))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", LAST)
    lab.site.call("scancel", lab.job_id(experiment, "1/train"), check=True)
    told = lab.told_within_two_polls(experiment, executor, "1/train")
    assert told.status.state is State.CANCELLED
    assert LAST in told.log_tail
    evaluation = lab.told_within_two_polls(experiment, executor, "1/eval")
    assert evaluation.status.state is State.SKIPPED
    assert evaluation.status.reason == "1/train did not succeed"


def test_a_job_that_slurm_forgot_is_lost_and_resume_runs_it_again(lab: ClusterLab) -> None:
    """Its controller comes back without any state, on a site that keeps no accounts."""
    marker = lab.runs.parent / "marker"
    code = WAITS_FOR_STOP.format(marker=str(marker))
    experiment = lab.register(train_and_eval(1, code))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    lab.site.stop_controller()
    lab.site.start_controller(forget=True)
    told = lab.told_within_two_polls(experiment, executor, "1/train")
    assert told.status.state is State.LOST
    assert "is no longer in Slurm's queue" in told.status.reason
    assert "working" in told.log_tail
    marker.touch()
    lab.site.wait_until(lambda: len(submit_missing(experiment, executor)) == 2, "resume")
    statuses = lab.wait_until_over(experiment, executor)
    assert {status.state for status in statuses.values()} == {State.DONE}


def test_a_real_time_limit_is_foreseen_with_a_checkpoint_or_told_as_what_it_was(
    lab: ClusterLab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm looks at time limits every 30 s, so both kinds of stage run at the same time."""
    code = WAITS_FOR_STOP.format(marker=str(lab.runs.parent / "marker"))
    stages = [stage(1, "train", python(code)), stage(2, "train", python(IGNORES_SIGNALS))]
    experiment = lab.register(stages)
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    lab.wait_for_log(experiment, "2/train", LAST)
    # Less than the 30 s of the profile's warning, and more than Slurm's round takes to notice.
    for key, left in (("1/train", "now+32"), ("2/train", "now")):
        job = lab.job_id(experiment, key)
        lab.site.call("scontrol", "update", f"JobId={job}", f"EndTime={left}", check=True)
    late = lab.told_within_two_polls(experiment, executor, "2/train")
    assert late.status.state is State.FAILED
    assert "reached its time limit" in late.status.reason
    assert LAST in late.log_tail
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert (status.state, status.attempt) == (State.DONE, 2)
    first, second = read_attempts(experiment.paths.stage("1/train"))
    assert (first.warned, first.end, first.exit_code) == (True, "put back", 140)
    assert (first.job, first.number, second.number) == (second.job, 1, 2)
    assert second.began_at - first.began_at < 100, "Slurm's hold of two minutes was lifted"
    assert "checkpoint written" in lab.log(experiment, "1/train")
    assert main(["status", str(experiment.paths.root)]) == 0
    shown = capsys.readouterr().out
    assert "train ×2" not in shown
    assert "warned, put back (exit code 140)" in " ".join(shown.split())


def test_a_job_that_never_came_to_its_stage_shows_its_own_output(
    lab: ClusterLab, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = dataclasses.replace(PROFILE.slurm, srun=("--no-such-option",))
    profile = dataclasses.replace(PROFILE, slurm=slurm)
    experiment = lab.register([stage(1, "train", python("pass"))], profile=profile)
    executor = lab.executor(experiment, profile)
    submit_missing(experiment, executor)
    told = lab.told_within_two_polls(experiment, executor, "1/train")
    assert told.status.state is State.FAILED
    assert any("no-such-option" in line for line in told.log_tail)
    assert main(["logs", str(experiment.paths.root)]) == 0
    assert "unrecognized option '--no-such-option'" in capsys.readouterr().out
