"""Measures what one worker needs to score and to adapt, before an evaluation is split.

The model has random weights and the tokens are random, so that nothing of what is to be scored is
seen before its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from golf.distributed import Ranks
from golf.evaluate.options import EvalOptions
from golf.evaluate.replica import Replica
from golf.evaluate.split import Times
from golf.evaluate.windows import plan_windows
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt

LONG_S = 0.5
"""What takes longer for one window or row is measured with two; else with a batch."""
ROWS = 8
"""Rows in such a batch, at most."""


def probe(options: EvalOptions, device: torch.device) -> Times:
    """Time windows, rows, steps and digest on one device, each after a run that is not counted."""
    replica = _replica(options, device)
    job = options.job

    def score(count: int) -> float:
        return _seconds(lambda: replica.score(range(1, 1 + count)))

    def adapt(rows: int) -> float:
        return _seconds(lambda: (replica.adapt(0, rows, 0.0), replica.flat.values[0][0].item()))

    windows = 2 if score(1) > LONG_S else job.evaluate.batch_windows
    one_row_s = adapt(1)
    rows = 2 if one_row_s > LONG_S else max(2, min(ROWS, job.ttt.batch_seqs))
    row_s = max(0.0, (adapt(rows) - one_row_s) / (rows - 1))
    return Times(
        window_s=score(windows) / windows,
        step_s=max(0.0, one_row_s - row_s),
        row_s=row_s,
        digest_s=_seconds(replica.digest),
    )


def _replica(options: EvalOptions, device: torch.device) -> Replica:
    job = options.job
    backend = choose_backend(device, options.dtype, options.attention)
    model = build_gpt(job.model, backend, device, options.dtype)
    seq_len, stride = job.evaluate.eval_seq_len, job.evaluate.stride
    count = max(ROWS, 2) * seq_len + job.evaluate.batch_windows * stride + 1
    tokens = np.random.default_rng(0).integers(0, job.model.vocab_size, count, dtype=np.uint16)
    once = replace(job, ttt=replace(job.ttt, epochs=1, batch_seqs=max(ROWS, 2)))
    grid = plan_windows(count, job.evaluate, "ttt")
    return Replica(model, tokens, grid, Ranks(0, 1, device), once, options.compiled)


def _seconds(call: Callable[[], object]) -> float:
    call()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
