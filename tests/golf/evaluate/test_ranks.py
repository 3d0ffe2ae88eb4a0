"""torchrun's ranks share windows and rows, and give one process's numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from torch import Tensor

from golf.config import Job, job_to_sections
from golf.evaluate.scoring import share
from golf.evaluate.verify import verify
from golf.records import DataPaths, read_json
from golf.weights import save_weights


def evaluate_with_ranks(
    num_ranks: int, tmp_path: Path, job: Job, weights: dict[str, Tensor], data: DataPaths
) -> Path:
    (tmp_path / "job.toml").write_text(tomli_w.dumps(job_to_sections(job)))
    save_weights(tmp_path / "w.safetensors", weights)
    out = tmp_path / f"ranks{num_ranks}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *(launcher if num_ranks > 1 else [sys.executable]),
        *([f"--nproc_per_node={num_ranks}"] if num_ranks > 1 else []),
        *["-m", "golf", "eval", "--config", str(tmp_path / "job.toml"), "--data", str(data.root)],
        *["--checkpoint", str(tmp_path / "w.safetensors"), "--protocol", "ttt", "--save-nll"],
        *["--out", str(out), "--device", "cpu"],
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return out


def test_two_and_four_ranks_score_and_adapt_as_one(
    tmp_path: Path, tiny_job: Job, weights: dict[str, Tensor], tiny_data: DataPaths
):
    """Also with batches of 3 rows, so that ranks hold unequal numbers of rows, or none."""
    job = replace(
        tiny_job,
        evaluate=replace(tiny_job.evaluate, stride=32),
        ttt=replace(tiny_job.ttt, batch_seqs=3, chunk_tokens=1024),
    )
    alone = evaluate_with_ranks(1, tmp_path, job, weights, tiny_data)
    for num_ranks in (2, 4):
        together = evaluate_with_ranks(num_ranks, tmp_path, job, weights, tiny_data)
        assert all(verdict.ok for verdict in verify(together))
        difference = np.abs(np.load(alone / "nll.npy") - np.load(together / "nll.npy"))
        assert difference.max() < 1e-4  # measured: 1.4e-6 nats with 2 and with 4 ranks
        one, many = (read_json(out / "result.json") for out in (alone, together))
        assert many["world_size"] == num_ranks
        assert (many["tokens"], many["bytes"]) == (one["tokens"], one["bytes"])


@pytest.mark.parametrize("count", [0, 1, 5, 8, 13])
@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_shares_are_contiguous_and_nearly_equal(count: int, world_size: int):
    shares = [share(range(count), rank, world_size) for rank in range(world_size)]
    assert [item for part in shares for item in part] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
