"""`golf bench`: how fast this machine trains, scores and adapts a job's model, on random tokens.

Each figure is the median over several runs after one that is not counted, timed with the device
drained before and after.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from golf.config import NUM_SPANS, Job
from golf.distributed import Ranks
from golf.evaluate.replica import Replica
from golf.evaluate.windows import plan_windows
from golf.model.attention import choose_backend, rope_tables
from golf.model.flat import FlatParameters
from golf.model.gpt import build_gpt
from golf.model.precision import autocast
from golf.optim.groups import Optimizers
from golf.quantize.gptq_lite import quantize_state


def bench(
    job: Job, ranks: Ranks, dtype: torch.dtype, *, compiled: bool, repeats: int
) -> dict[str, Any]:
    """Median time and throughput of a micro-batch, update, scored batch, SGD step and digest."""
    torch.manual_seed(0)
    backend = choose_backend(ranks.device, dtype)
    job = replace(job, ttt=replace(job.ttt, epochs=1))
    seq_len, rows = job.evaluate.eval_seq_len, job.ttt.batch_seqs
    tokens = np.random.default_rng(0).integers(
        0, job.model.vocab_size, size=seq_len * max(rows, 2) + 1, dtype=np.uint16
    )
    grid = plan_windows(len(tokens), job.evaluate, "sliding")
    model = build_gpt(job.model, backend, ranks.device, dtype)
    replica = Replica(model, tokens, grid, ranks, job, compiled)
    count = min(job.evaluate.batch_windows, grid.num_windows - 2)
    windows = range(1, 1 + max(count, 1))
    scored = sum(grid.window(k).shape[1] for k in windows)
    micro_batch, update, span_tokens = _training(job, ranks, dtype, compiled)
    timed: dict[str, tuple[Callable[[], object], int]] = {
        "train_micro_batch": (micro_batch, span_tokens),
        "optimizer_step": (update, 0),
        "score_batch": (lambda: replica.score(windows), scored),
        "ttt_sgd_step": (lambda: replica.adapt(0, rows, 1e-6), rows * seq_len),
        "weights_digest": (replica.digest, 0),
        "quantize": (lambda: quantize_state(model.state_dict(), job.quantize), 0),
    }
    figures = {name: _figure(ranks, call, n, repeats) for name, (call, n) in timed.items()}
    return {
        "device": ranks.device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": backend.name,
        "compiled": compiled,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "figures": figures,
    }


def _training(
    job: Job, ranks: Ranks, dtype: torch.dtype, compiled: bool
) -> tuple[Callable[[], object], Callable[[], object], int]:
    """A forward and backward of one span, an update of all weights, and the span's tokens."""
    model = build_gpt(job.model, choose_backend(ranks.device, dtype), ranks.device, dtype)
    flat = FlatParameters(model)
    optimizers = Optimizers(model, job.optim)
    rope = rope_tables(job.model, job.data.train_seq_len, ranks.device)
    called = torch.compile(model) if compiled else model
    shape = (
        job.data.train_batch_tokens // NUM_SPANS // job.data.train_seq_len,
        job.data.train_seq_len,
    )
    ids = torch.randint(job.model.vocab_size, shape, device=ranks.device)

    def micro_batch() -> None:
        with autocast(ranks.device, dtype):
            loss = called(ids, ids, rope).mean()
        loss.backward()

    def update() -> None:
        flat.clip_gradients(job.optim.grad_clip_norm)
        optimizers.step(1.0, job.optim.muon_momentum)

    return micro_batch, update, ids.numel()


def _figure(
    ranks: Ranks, call: Callable[[], object], tokens: int, repeats: int
) -> dict[str, float | None]:
    times = []
    for _ in range(repeats + 1):
        _drain(ranks)
        began = time.perf_counter()
        call()
        _drain(ranks)
        times.append((time.perf_counter() - began) * 1000)
    median_ms = statistics.median(times[1:])
    return {
        "median_ms": median_ms,
        "min_ms": min(times[1:]),
        "max_ms": max(times[1:]),
        "tokens_per_s": tokens / median_ms * 1000 if tokens else None,
    }


def _drain(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
