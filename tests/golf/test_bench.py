from __future__ import annotations

import math

import torch

from golf.bench import bench
from golf.config import Job
from golf.distributed import Ranks


def test_every_part_of_a_run_is_timed(tiny_job: Job) -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    result = bench(tiny_job, ranks, torch.float32, compiled=False, repeats=2)
    figures = result["figures"]
    with_tokens = {"train_micro_batch", "score_batch", "ttt_sgd_step"}
    assert set(figures) == with_tokens | {"optimizer_step", "weights_digest", "quantize"}
    for name, figure in figures.items():
        assert 0 < figure["min_ms"] <= figure["median_ms"] <= figure["max_ms"] < math.inf
        assert (figure["tokens_per_s"] is not None) == (name in with_tokens)
    assert (result["device"], result["dtype"], result["attention"]) == ("cpu", "float32", "sdpa")
    assert result["parameters"] > 10_000
