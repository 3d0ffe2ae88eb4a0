"""What clusters do: preemption, lost nodes, full memory, dead controllers, killed launchers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster_lab import PROFILE, WAITS_FOR_STOP, ClusterLab
from lab import python, stage, train_and_eval

from golf.config import load_job
from golf.records import read_json
from launcher.clock import SystemClock
from launcher.errors import LaunchError
from launcher.experiment import Experiment, ExperimentPaths
from launcher.plan import make_plan
from launcher.states import State
from launcher.submit import cancel_and_wait, submit_missing
from launcher.watch import Watcher

JOB = Path(__file__).resolve().parents[2] / "jobs/smoke.toml"
TINY = (
    "model.num_layers=2", "model.model_dim=32", "model.num_heads=2", "model.num_kv_heads=1",
    "model.xsa_last_n=1", "model.ve_layers=[1]", "data.train_batch_tokens=2048",
    "schedule.iterations=40", "schedule.warmdown_iters=20", "schedule.val_every=0",
    "evaluate.stride=128",
)  # fmt: skip
"""The shipped smoke job, small enough for seconds."""


def stoppable(lab: ClusterLab) -> str:
    return WAITS_FOR_STOP.format(marker=str(lab.runs.parent / "marker"))


def attempts(experiment: Experiment, key: str) -> list[str]:
    text = (experiment.paths.stage(key).root / "attempts.jsonl").read_text()
    return [json.loads(line)["event"] for line in text.splitlines()]


def test_a_preempted_stage_writes_its_checkpoint_waits_and_goes_on(lab: ClusterLab) -> None:
    experiment = lab.register(train_and_eval(1, stoppable(lab)))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    urgent = lab.site.call(
        "sbatch", "--parsable", "--partition=urgent", "-N2", "--exclusive", "-o", "/dev/null",
        "--wrap", "sleep 60", check=True,
    ).stdout.strip()  # fmt: skip
    lab.wait_for_log(experiment, "1/train", "checkpoint written")
    status = lab.wait_for(experiment, executor, "1/train", State.WAITING)
    lab.site.call("scancel", urgent)
    statuses = lab.wait_until_over(experiment, executor)
    assert {s.state for s in statuses.values()} == {State.DONE}
    assert statuses["1/train"].attempt == 2
    assert "second time" in lab.log(experiment, "1/train")
    assert status.state is State.WAITING


def test_the_warning_ahead_of_the_time_limit_puts_the_stage_back(lab: ClusterLab) -> None:
    experiment = lab.register([stage(1, "train", python(stoppable(lab)))])
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    lab.site.call("scancel", "--batch", "-s", "USR2", lab.job_id(experiment, "1/train"), check=True)
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert (status.state, status.attempt) == (State.DONE, 2)
    # The script's own last note may still be on its way.
    assert attempts(experiment, "1/train")[:4] == ["started", "warned", "requeued", "started"]


def test_a_stage_that_is_interrupted_too_often_gives_up_and_says_so(lab: ClusterLab) -> None:
    slurm = dataclasses.replace(PROFILE.slurm, max_attempts=1)
    profile = dataclasses.replace(PROFILE, slurm=slurm)
    experiment = lab.register([stage(1, "train", python(stoppable(lab)))], profile=profile)
    executor = lab.executor(experiment, profile)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    lab.site.call("scancel", "--batch", "-s", "USR2", lab.job_id(experiment, "1/train"), check=True)
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert status.state is State.FAILED
    assert status.reason.startswith("gave up after 1 attempts")


def test_a_lost_node_costs_an_attempt_and_no_result(lab: ClusterLab) -> None:
    marker = lab.runs.parent / "marker"
    code = f"""
import pathlib, sys, time
marker = pathlib.Path({str(marker)!r})
if marker.exists():
    sys.exit(0)
marker.touch()
print("working", flush=True)
time.sleep(300)
"""
    experiment = lab.register(train_and_eval(1, code))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    node = lab.site.node_of(lab.job_id(experiment, "1/train"))
    lab.site.kill_node(node)
    statuses = lab.wait_until_over(experiment, executor)
    assert {s.state for s in statuses.values()} == {State.DONE}
    assert statuses["1/train"].attempt == 2


def test_cancel_stops_with_a_checkpoint_and_nothing_comes_back(lab: ClusterLab) -> None:
    experiment = lab.register(train_and_eval(1, stoppable(lab)))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    keys = ["1/train", "1/eval"]
    _, after = cancel_and_wait(experiment, executor, keys, SystemClock())
    assert {after[key].state for key in keys} == {State.CANCELLED}
    assert "checkpoint written" in lab.log(experiment, "1/train")
    lab.site.wait_until(lambda: not lab.site.call("squeue", "-h").stdout, "an empty queue")
    assert "requeued" not in attempts(experiment, "1/train")
    submit_missing(experiment, executor)
    assert {s.state for s in lab.wait_until_over(experiment, executor).values()} == {State.DONE}


def test_a_dead_controller_is_survived_and_told(lab: ClusterLab) -> None:
    go = lab.runs.parent / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"
    experiment = lab.register(train_and_eval(1, waits))
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for(experiment, executor, "1/train", State.RUNNING)
    lab.site.stop_controller()
    lab.site.wait_until(
        lambda: "does not answer" in lab.statuses(experiment, executor)["1/train"]
        .observation.evidence, "the silence to be told",
    )  # fmt: skip
    watcher = Watcher(experiment, executor, SystemClock())
    view = watcher.look()
    assert view.seeds[0].state is State.RUNNING
    assert view.silence is not None
    assert view.silence.reason.startswith("Slurm does not answer: ")
    fresh = lab.executor(experiment)
    assert lab.statuses(experiment, fresh)["1/eval"].state is State.WAITING
    with pytest.raises(LaunchError, match="Slurm does not answer"):
        submit_missing(experiment, fresh)
    lab.site.start_controller()
    lab.site.wait_until(lambda: watcher.look().silence is None, "the answer to be told")
    go.touch()
    statuses = lab.wait_until_over(experiment, executor)
    assert {s.state for s in statuses.values()} == {State.DONE}
    assert statuses["1/train"].attempt == 1


def test_with_accounts_a_job_that_the_queue_forgot_is_told_by_sacct(
    accounted_lab: ClusterLab,
) -> None:
    lab = accounted_lab
    experiment = lab.register([stage(1, "train", python("import time; time.sleep(60)"))])
    executor = lab.executor(experiment)
    lab.site.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    submit_missing(experiment, executor)
    job = lab.job_id(experiment, "1/train")
    lab.site.call("scancel", job, check=True)
    lab.site.wait_until(
        lambda: job not in lab.site.call("squeue", "-h", "-t", "all", "-o", "%i").stdout.split(),
        "the queue to forget",
    )
    lab.site.call("scontrol", "update", "PartitionName=main", "State=UP")
    deadline = time.monotonic() + 20
    while True:  # the database learns of it a moment later
        status = lab.statuses(experiment, lab.executor(experiment))["1/train"]
        if status.state is State.CANCELLED or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert status.state is State.CANCELLED
    assert "sacct" in status.observation.evidence


def test_after_a_preemption_training_ends_with_the_very_bits_of_an_undisturbed_run(
    lab: ClusterLab,
) -> None:
    """Real training, stopped once in its middle, against the same training left alone."""
    job = load_job(JOB, TINY)
    data = lab.runs.parent / "data"
    golf = [sys.executable, "-m", "golf"]
    docs = ["--docs", "embedded", "--vocab-size", str(job.model.vocab_size), "--val-docs", "2"]
    subprocess.run([*golf, "prepare", *docs, "--out", str(data)], check=True, capture_output=True)
    plans = {name: ExperimentPaths(lab.runs / name) for name in ("left-alone", "disturbed")}
    experiments = {}
    for name, paths in plans.items():
        stages = [s for s in make_plan(job, [1], paths, data).stages if s.kind == "train"]
        experiments[name] = lab.register(stages, name, job=job)
        submit_missing(experiments[name], lab.executor(experiments[name]))
    disturbed = experiments["disturbed"]
    metrics = disturbed.paths.train(1).metrics
    lab.site.wait_until(lambda: metrics.exists() and '"step": 3,' in metrics.read_text(), "step 3")
    lab.site.call("scancel", "-b", "-s", "USR2", lab.job_id(disturbed, "1/train"), check=True)
    for experiment in experiments.values():
        status = lab.wait_until_over(experiment, lab.executor(experiment))["1/train"]
        assert status.state is State.DONE, status
    assert "requeued" in attempts(disturbed, "1/train")
    assert "resuming after step" in lab.log(disturbed, "1/train")
    one, other = (experiments[name].paths for name in plans)
    assert one.train(1).model.read_bytes() == other.train(1).model.read_bytes()
    assert one.artifact(1).read_bytes() == other.artifact(1).read_bytes()
    losses = [read_json(paths.round_trip(1).result)["val_loss"] for paths in (one, other)]
    assert losses[0] == losses[1]
