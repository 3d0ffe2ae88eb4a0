"""An evaluation over the two nodes of one Slurm job: who dies, and what becomes of the numbers."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_lab import ClusterLab
from trained_seed import train_and_evaluate

from golf.config import Job, ResourcesConfig
from golf.records import DataPaths, EvalPaths, read_json
from launcher.experiment import Experiment, ExperimentPaths
from launcher.plan import make_plan
from launcher.states import State
from launcher.submit import submit_missing

SEED = 1
OVER_S = 240.0
"""For a busy machine of few cores, on which a Ray of two nodes takes half a minute to come up."""


@pytest.fixture(scope="module")
def two_nodes(tiny_job: Job) -> Job:
    """A job of some 25 chunks, scored by one worker on each of two nodes."""
    return replace(
        tiny_job,
        ttt=replace(tiny_job.ttt, chunk_tokens=128, checkpoint_chunks=4, epochs=30),
        fanout=replace(tiny_job.fanout, workers=2, nodes=2),
        resources=ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=3, time_minutes=10),
    )


@pytest.fixture(scope="module")
def trained(two_nodes: Job, tiny_data: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seed's training folder, and beside it the numbers of two ranks without Ray or Slurm."""
    return train_and_evaluate(two_nodes, tiny_data, tmp_path_factory.mktemp("trained"), SEED, 2)


Submitted = tuple[Experiment, Any]


@pytest.fixture
def submit(
    lab: ClusterLab, two_nodes: Job, trained: Path, tiny_data: DataPaths
) -> Callable[[], Submitted]:
    """Submit the evaluation of a seed whose training is done."""

    def run() -> Submitted:
        paths = ExperimentPaths(lab.runs / f"fanout-{os.urandom(3).hex()}")
        *_, evaluate = make_plan(two_nodes, [SEED], paths, tiny_data.root).stages
        ttt_and_verify = evaluate.commands[1:]
        stage = replace(evaluate, after=(), commands=ttt_and_verify)
        experiment = lab.register([stage], paths.root.name, job=two_nodes)
        shutil.copytree(trained / "train", paths.train(SEED).root)
        executor = lab.executor(experiment)
        submit_missing(experiment, executor)
        return experiment, executor

    return run


def progress(experiment: Experiment) -> dict[str, Any]:
    return read_json(experiment.paths.evaluation(SEED, "ttt").progress) or {}


def wait_for_chunk(lab: ClusterLab, experiment: Experiment, chunk: int) -> dict[str, Any]:
    lab.site.wait_until(
        lambda: progress(experiment).get("chunk", -1) >= chunk, f"chunk {chunk}", limit_s=90
    )
    return progress(experiment)


def processes_of(lab: ClusterLab, node: str, program: str) -> list[int]:
    """Those of this node's processes that run a program of this name."""
    found = []
    for pid in lab.site._own_processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            env = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURMD_NODENAME={node}".encode() in env and any(
            word.decode().endswith(program) for word in words
        ):
            found.append(pid)
    return found


def assert_same_numbers(experiment: Experiment, trained: Path) -> dict[str, Any]:
    out = experiment.paths.evaluation(SEED, "ttt").root
    for name in ("plan.json", "ledger.jsonl"):
        assert (out / name).read_bytes() == (trained / "ttt" / name).read_bytes(), name
    result, wanted = (read_json(EvalPaths(p).result) for p in (out, trained / "ttt"))
    assert result is not None
    assert wanted is not None
    assert result["val_bpb"] == wanted["val_bpb"]
    return result


def test_a_worker_and_a_ray_node_that_are_killed_change_no_number(
    lab: ClusterLab, submit: Callable[[], Submitted], trained: Path
) -> None:
    experiment, executor = submit()
    workers = wait_for_chunk(lab, experiment, 2)["workers"]
    assert [worker["host"] for worker in workers] == ["node1", "node2"]
    meeting = experiment.paths.stage(f"{SEED}/eval").root / "nodes/meeting.json"
    assert stat.S_IMODE(meeting.stat().st_mode) == 0o600, "it holds the token"
    os.kill(workers[1]["pid"], signal.SIGKILL)
    lab.site.wait_until(lambda: len(progress(experiment)["recoveries"]) == 1, "a recovery", 60)
    lab.site.wait_until(
        lambda: progress(experiment)["recoveries"][0]["rebuild_s"] is not None, "a new group", 60
    )
    [raylet] = processes_of(lab, "node2", "/raylet")
    os.kill(raylet, signal.SIGKILL)
    status = lab.wait_until_over(experiment, executor, OVER_S)[f"{SEED}/eval"]
    assert (status.state, status.attempt) == (State.DONE, 1), status
    assert len(assert_same_numbers(experiment, trained)["recoveries"]) >= 2
    assert "token" not in meeting.read_text()
    for node in ("node1", "node2"):
        assert not processes_of(lab, node, "/raylet")


def test_a_lost_node_puts_the_evaluation_back_and_it_ends_with_the_same_numbers(
    lab: ClusterLab, submit: Callable[[], Submitted], trained: Path
) -> None:
    experiment, executor = submit()
    wait_for_chunk(lab, experiment, 5)  # one checkpoint is written
    lab.site.kill_node("node2")
    lab.site.wait_until(
        lambda: lab.statuses(experiment, executor)[f"{SEED}/eval"].state is State.WAITING,
        "the job to be put back",
    )
    lab.site.start_node("node2")
    status = lab.wait_until_over(experiment, executor, OVER_S)[f"{SEED}/eval"]
    assert (status.state, status.attempt) == (State.DONE, 2), status
    assert_same_numbers(experiment, trained)
    assert "resuming after chunk" in lab.log(experiment, f"{SEED}/eval")
