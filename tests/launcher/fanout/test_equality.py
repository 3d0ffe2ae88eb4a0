"""Ray workers give the numbers of as many ranks of torchrun, to the last bit.

A pipelined evaluation is held against these in `test_pipelined.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golf.cli import main
from golf.evaluate.verify import verify
from golf.records import DataPaths, EvalPaths, read_json


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_are_as_good_as_ranks(fan_out, evaluated, tmp_path: Path, workers: int):
    out = tmp_path / "ray"
    result = fan_out(out, workers)
    ranks = evaluated(workers)
    assert {**result, "seconds": 0} == {**read_json(EvalPaths(ranks).result), "seconds": 0}
    for name in ("plan.json", "ledger.jsonl", "nll.npy"):
        assert (out / name).read_bytes() == (ranks / name).read_bytes()
    assert all(verdict.ok for verdict in verify(out))


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_scores_as_one_process(evaluated, ranks: int):
    """Only the order of sums and batches differ; measured: 1.3e-6 nats with 2, 1.4e-6 with 4."""
    together, alone = (np.load(evaluated(count) / "nll.npy") for count in (ranks, 1))
    difference = np.abs(together - alone).max()
    print(f"largest difference: {difference:.2g} nats")
    assert 0 < difference < 1e-4


def test_one_process_can_replay_what_two_workers_did(
    fan_out, job_file: Path, tiny_data: DataPaths, tmp_path: Path, capsys
):
    fan_out(tmp_path / "ray")
    weights = job_file.with_name("w.safetensors")
    sources = ["--data", str(tiny_data.root), "--checkpoint", str(weights)]
    words = ["verify", str(tmp_path / "ray"), "--replay", "3"]
    assert main([*words, *sources, "--device", "cpu"]) == 0
    assert "scores within 0.0001 nats a token" in capsys.readouterr().out
    assert main(words) == 2
    assert "--replay needs --data" in capsys.readouterr().err


def test_progress_tells_of_each_worker(fan_out, tmp_path: Path):
    fan_out(tmp_path / "ray")
    progress = read_json(EvalPaths(tmp_path / "ray").progress)
    assert [worker["rank"] for worker in progress["workers"]] == [0, 1]
    assert len({worker["pid"] for worker in progress["workers"]}) == 2
    assert all(0 < worker["busy"] <= 1 for worker in progress["workers"])
    assert progress["windows"] == progress["num_windows"] > 0
