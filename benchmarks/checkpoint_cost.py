"""What a checkpoint of the record's weights and momentum costs, held against K chunks' time.

1. Whoever saves waits for a copy in memory; hashing, writing and syncing happen beside the work.
2. Both are timed, with the folder on the disk that `--folder` names.
3. The share is taken of `ttt.checkpoint_chunks` chunks, at the published 408 s on 8 H100s (PR 549),
   at the fastest that `simulate_fanout.py` predicts, and, with `--here`, at this machine's speed.

Run: `python benchmarks/checkpoint_cost.py [--here]`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from simulate_fanout import FINEWEB_CHUNKS, RECORD, best_pipelined, published_scenarios, strict_s

from golf.checkpoints import Checkpoints, CheckpointWriter
from golf.config import Job, load_job
from golf.evaluate.options import EvalOptions
from golf.evaluate.probe import probe
from golf.evaluate.split import strict_chunk_s
from golf.model.attention import choose_backend
from golf.model.flat import FlatParameters
from golf.model.gpt import build_gpt

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
REPEATS = 5


def measure(folder: Path | None, here: bool) -> dict[str, Any]:
    job = load_job(ROOT / "jobs" / "record.toml")
    every = job.ttt.checkpoint_chunks
    with tempfile.TemporaryDirectory(dir=folder) as name:
        blocking_s, whole_s, size_bytes = _save(job, Path(name))
    fastest = min(
        min(
            strict_s(s.times, RECORD, FINEWEB_CHUNKS, count),
            best_pipelined(s.times, RECORD, FINEWEB_CHUNKS, count)[0],
        )
        for s in published_scenarios()
        for count in (8, 16, 24, 64)
    )
    spans = {
        "published, 8 H100s": every * 408.0 / FINEWEB_CHUNKS,
        "fastest predicted": every * fastest / FINEWEB_CHUNKS,
    }
    if here:
        options = EvalOptions(job=job, protocol="ttt", out=Path(), dtype=torch.float32)
        spans["one core here"] = every * strict_chunk_s(probe(options, CPU), RECORD, 1)
    return {
        "blocking_s": blocking_s,
        "whole_s": whole_s,
        "size_bytes": size_bytes,
        "every": every,
        "spans_s": spans,
    }


def _save(job: Job, folder: Path) -> tuple[float, float, int]:
    """Median seconds that the saver waits, and until all is on disk; bytes."""
    model = build_gpt(job.model, choose_backend(CPU, torch.float32), CPU, torch.float32)
    flat = FlatParameters(model)
    momenta = [torch.zeros_like(values) for values in flat.values]
    state = {f"weights.{name}": t for name, t in flat.unflatten(flat.values).items()}
    state |= {f"momentum.{name}": t for name, t in flat.unflatten(momenta).items()}
    writer = CheckpointWriter(Checkpoints(folder, "chunk"))
    blocking, whole = [], []
    for number in range(1 + REPEATS):
        began = time.perf_counter()
        writer.save(number, state, {})
        blocking.append(time.perf_counter() - began)
        writer.settle()
        whole.append(time.perf_counter() - began)
    size_bytes = sum(t.numel() * t.element_size() for t in state.values())
    return statistics.median(blocking[1:]), statistics.median(whole[1:]), size_bytes


def show(found: dict[str, Any]) -> None:
    print(
        f"checkpoint of {found['size_bytes'] / 1e6:.0f} MB: the work waits "
        f"{1000 * found['blocking_s']:.0f} ms, on disk after {1000 * found['whole_s']:.0f} ms"
    )
    for name, span_s in found["spans_s"].items():
        print(
            f"  {found['every']} chunks, {name}: {span_s:.1f} s; waiting is "
            f"{found['blocking_s'] / span_s:.2%} of it, writing {found['whole_s'] / span_s:.2%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--here", action="store_true", help="time this machine's chunks too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    show(measure(arguments.folder, arguments.here))


if __name__ == "__main__":
    main()
