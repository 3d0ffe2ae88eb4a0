"""Both schedules of the fan-out against one process, on the same model and tokens; and its parts.

1. The job's model with random weights scores and adapts on held-out text, by `golf eval`, then by
   `python -m launcher.fanout` with each number of workers, strict and pipelined.
2. The table gives seconds of the evaluation (without starting Python and Ray), efficiency against
   one process, what coordination costs a chunk (the time in which no worker was in a call), the
   simulator's prediction, and how far any score is from one process's.
3. The simulator's times are probed here: rows and windows scaled to the one process's time, links
   measured over gloo, coordination as one strict worker's time outside calls.
4. Hand-over, checkpoint and `golf verify` of a FineWeb-size ledger are timed beside it, and the
   simulator's H100 tables printed with the coordination measured here.

Run it alone on a machine: `python benchmarks/fanout.py --workers 1 2 4 --json figures.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import checkpoint_cost
import handover
import numpy as np
import simulate_fanout
import torch
import verify_ledger

from golf.config import Job, load_job
from golf.data.documents import read_documents
from golf.data.prepare import embedded_corpus, prepare
from golf.evaluate.options import EvalOptions
from golf.evaluate.probe import probe
from golf.evaluate.split import ChunkWork, Times, best_split, strict_chunk_s
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt
from golf.weights import save_weights

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation; `workers` 0 is one process without Ray."""

    schedule: str
    workers: int
    adapters: int
    seconds: float
    num_chunks: int
    busy: list[float]
    nll: Any

    @property
    def label(self) -> str:
        if self.workers == 0:
            return "one process"
        if self.schedule == "strict":
            return f"strict {self.workers}"
        return f"pipelined {self.adapters} + {self.workers - self.adapters}"

    @property
    def coordination_s(self) -> float:
        """A chunk's time in which not even the busiest worker was in a call."""
        return self.seconds * (1 - max(self.busy, default=1.0)) / self.num_chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, default=ROOT / "jobs" / "smoke.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--val-docs", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    job = load_job(arguments.job, arguments.set)
    with tempfile.TemporaryDirectory() as name:
        runs = _measure_all(Path(name), arguments, job)
    times = _calibrate(job, runs)
    _show(job, runs, times)
    parts = _measure_parts(job)
    simulate_fanout.show([8, 16, 24, 64], times.chunk_s)
    if arguments.json:
        told = [{k: v for k, v in asdict(run).items() if k != "nll"} for run in runs]
        figures = {"runs": told, "times": asdict(times), **parts}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


# ---- the evaluations ----


def _measure_all(folder: Path, arguments: argparse.Namespace, job: Job) -> list[Run]:
    options = _prepare(folder, arguments, job)
    times, work = _probe(job), ChunkWork.of(job)
    runs = [_run(["golf", "eval"], folder / "alone", options, "strict", 0, 0)]
    for workers in arguments.workers:
        program = ["launcher.fanout", "--workers", str(workers)]
        out = folder / f"strict{workers}"
        runs.append(_run(program, out, options, "strict", workers, workers))
    for workers in (count for count in arguments.workers if count > 1):
        adapters = best_split(times, work, workers)
        settings = ["ttt.schedule=pipelined", f"fanout.adapters={adapters}"]
        program = ["launcher.fanout", "--workers", str(workers)]
        program += [word for setting in settings for word in ("--set", setting)]
        out = folder / f"pipelined{workers}"
        runs.append(_run(program, out, options, "pipelined", workers, adapters))
    return runs


def _prepare(folder: Path, arguments: argparse.Namespace, job: Job) -> list[str]:
    """Data and weights; returns the options that all evaluations share."""
    data, weights = folder / "data", folder / "w.safetensors"
    docs = folder / "docs.jsonl"
    texts = [text for text, _ in zip(read_documents(embedded_corpus()), range(60), strict=False)]
    docs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([docs], data, vocab_size=job.model.vocab_size, val_docs=arguments.val_docs, workers=1)
    save_weights(weights, _random_weights(job))
    settings = [word for setting in arguments.set for word in ("--set", setting)]
    return [
        *["--config", str(arguments.job), *settings, "--data", str(data), "--device", "cpu"],
        *["--checkpoint", str(weights), "--protocol", "ttt", "--json", "--save-nll"],
    ]


def _random_weights(job: Job) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_gpt(job.model, choose_backend(CPU, torch.float32), CPU, torch.float32)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _run(
    program: list[str], out: Path, options: list[str], schedule: str, workers: int, adapters: int
) -> Run:
    words = [sys.executable, "-m", *program, *options, "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} exited with code {done.returncode}")
    result = json.loads(done.stdout)
    progress = json.loads((out / "progress.json").read_text())
    return Run(
        schedule=schedule,
        workers=workers,
        adapters=adapters,
        seconds=result["seconds"],
        num_chunks=result["num_chunks"],
        busy=[worker["busy"] for worker in progress.get("workers", [])],
        nll=np.load(out / "nll.npy"),
    )


# ---- calibration and prediction ----


def _probe(job: Job) -> Times:
    return probe(EvalOptions(job=job, protocol="ttt", out=Path(), dtype=torch.float32), CPU)


def _calibrate(job: Job, runs: list[Run]) -> Times:
    """Times of one worker here, by which the simulator is held against the measurements."""
    times, work, alone = _probe(job), ChunkWork.of(job), runs[0]
    link = handover.measure_gloo(_num_parameters(job))
    scale = alone.seconds / alone.num_chunks / strict_chunk_s(times, work, 1)
    one = next((run for run in runs[1:] if run.schedule == "strict"), None)
    chunk_s = one.coordination_s if one else 0.0
    return Times(
        **{key: scale * value for key, value in asdict(times).items()}
        | {"reduce_s": link["all_reduce_s"], "handover_s": link["send_s"], "chunk_s": chunk_s}
    )


def _num_parameters(job: Job) -> int:
    return sum(weight.numel() for weight in _random_weights(job).values())


def _predict(job: Job, run: Run, times: Times) -> float:
    work, cores = ChunkWork.of(job), len(os.sched_getaffinity(0))
    if run.workers == 0:
        return simulate_fanout.strict_s(replace(times, chunk_s=0.0), work, run.num_chunks, 1)
    if run.schedule == "strict":
        return simulate_fanout.strict_s(times, work, run.num_chunks, run.workers, cores)
    return simulate_fanout.pipelined_s(
        times, work, run.num_chunks, run.workers, run.adapters, cores=cores
    )


def _show(job: Job, runs: list[Run], times: Times) -> None:
    alone, cores = runs[0], len(os.sched_getaffinity(0))
    print(
        f"{job.job.name}: {_num_parameters(job):,} parameters, {alone.num_chunks} chunks, {cores} "
        f"cores; a window {1000 * times.window_s:.1f} ms, a step {1000 * times.step_s:.1f} ms and "
        f"{1000 * times.row_s:.1f} ms a row"
    )
    head = ("", "seconds", "efficiency", "coordination", "predicted", "off", "difference", "busy")
    print("{:>16} {:>8} {:>10} {:>12} {:>10} {:>6} {:>10}  {}".format(*head))
    for run in runs:
        predicted = _predict(job, run, times)
        efficiency = alone.seconds / run.seconds / max(1, min(run.workers, cores))
        difference = np.abs(run.nll - alone.nll).max()
        busy = " ".join(f"{share:.0%}" for share in run.busy)
        print(
            f"{run.label:>16} {run.seconds:>8.2f} {efficiency:>10.0%} "
            f"{1000 * run.coordination_s:>9.1f} ms {predicted:>10.2f} "
            f"{predicted / run.seconds - 1:>+6.0%} {difference:>10.1e}  {busy}"
        )
    print(
        "efficiency is a core's, so that four workers on two cores are held against two; "
        "difference is\nthe largest of any score from one process's, in nats"
    )


def _measure_parts(job: Job) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for count in (_num_parameters(job), handover.RECORD_FLOATS):
        found = handover.measure_gloo(count) | handover.measure_ray(count)
        handover.show(count, found)
        parts[f"handover_{count}"] = found
    parts["checkpoint"] = checkpoint_cost.measure(None, here=True)
    checkpoint_cost.show(parts["checkpoint"])
    parts["verify"] = verify_ledger.measure()
    verify_ledger.show(parts["verify"])
    return parts


if __name__ == "__main__":
    main()
