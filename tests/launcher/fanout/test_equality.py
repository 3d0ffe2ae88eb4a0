"""Ray workers give the numbers of as many ranks of torchrun, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golf.evaluate.verify import verify
from golf.records import EvalPaths, read_json


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_as_good_as_ranks(fan_out, evaluated, tmp_path: Path, workers: int):
    out = tmp_path / "ray"
    result = fan_out(out, workers)
    ranks = evaluated(workers)
    assert {**result, "seconds": 0} == {**read_json(EvalPaths(ranks).result), "seconds": 0}
    for name in ("plan.json", "ledger.jsonl", "nll.npy"):
        assert (out / name).read_bytes() == (ranks / name).read_bytes()
    assert all(verdict.ok for verdict in verify(out))


def test_two_workers_score_as_one_process(fan_out, evaluated, tmp_path: Path):
    fan_out(tmp_path / "ray")
    together, alone = (np.load(p / "nll.npy") for p in (tmp_path / "ray", evaluated(1)))
    difference = np.abs(together - alone).max()
    assert difference < 1e-4, f"measured: {difference}"


def test_progress_tells_of_each_worker(fan_out, tmp_path: Path):
    fan_out(tmp_path / "ray")
    progress = read_json(EvalPaths(tmp_path / "ray").progress)
    assert [worker["rank"] for worker in progress["workers"]] == [0, 1]
    assert len({worker["pid"] for worker in progress["workers"]}) == 2
    assert all(0 < worker["busy"] <= 1 for worker in progress["workers"])
    assert progress["windows"] == progress["num_windows"] > 0
