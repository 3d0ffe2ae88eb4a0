"""The pipelined schedule over the two nodes of one Slurm job: weights travel from node to node."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_lab import ClusterLab
from pipeline_lab import by_chunk
from trained_seed import train_and_evaluate

from golf.config import Job, ResourcesConfig
from golf.records import DataPaths, EvalPaths, read_json
from launcher.experiment import ExperimentPaths
from launcher.plan import make_plan
from launcher.states import State
from launcher.submit import submit_missing

SEED = 1
OVER_S = 240.0


@pytest.fixture(scope="module")
def strict_job(tiny_job: Job) -> Job:
    return replace(
        tiny_job,
        ttt=replace(tiny_job.ttt, chunk_tokens=128, checkpoint_chunks=4, epochs=30),
        resources=ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=3, time_minutes=10),
    )


@pytest.fixture(scope="module")
def trained(
    strict_job: Job, tiny_data: DataPaths, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A seed's training folder, and beside it the numbers of one process by the strict schedule."""
    return train_and_evaluate(strict_job, tiny_data, tmp_path_factory.mktemp("trained"), SEED, 1)


def test_adapter_and_scorer_on_two_nodes_give_one_process_s_numbers_also_after_a_kill(
    lab: ClusterLab, strict_job: Job, trained: Path, tiny_data: DataPaths
) -> None:
    job = replace(
        strict_job,
        ttt=replace(strict_job.ttt, schedule="pipelined"),
        fanout=replace(strict_job.fanout, workers=2, nodes=2),
    )
    paths = ExperimentPaths(lab.runs / f"pipelined-{os.urandom(3).hex()}")
    *_, evaluate = make_plan(job, [SEED], paths, tiny_data.root).stages
    stage = replace(evaluate, after=(), commands=evaluate.commands[1:])  # TTT and verify
    experiment = lab.register([stage], paths.root.name, job=job)
    shutil.copytree(trained / "train", paths.train(SEED).root)
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    out = experiment.paths.evaluation(SEED, "ttt").root

    lab.site.wait_until(
        lambda: (read_json(EvalPaths(out).progress) or {}).get("chunk", 0) >= 2, "2 chunks", 120
    )
    workers = read_json(EvalPaths(out).progress)["workers"]
    assert [(w["host"], w["role"]) for w in workers] == [("node1", "adapter"), ("node2", "scorer")]
    os.kill(workers[1]["pid"], signal.SIGKILL)
    status = lab.wait_until_over(experiment, executor, OVER_S)[f"{SEED}/eval"]
    assert (status.state, status.attempt) == (State.DONE, 1), status
    assert by_chunk(out) == by_chunk(trained / "ttt")
    result, wanted = (read_json(EvalPaths(p).result) for p in (out, trained / "ttt"))
    assert (result["val_bpb"], result["nll_sum_nats"]) == (
        wanted["val_bpb"],
        wanted["nll_sum_nats"],
    )
    assert len(result["recoveries"]) >= 1
