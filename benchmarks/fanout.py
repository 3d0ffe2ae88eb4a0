"""Strict fan-out over Ray workers against one process, on the same model and tokens.

1. The job's model with random weights scores and adapts on random tokens, by `golf eval`.
2. The same by `python -m launcher.fanout` with each number of workers.
3. The table gives seconds of the evaluation (without starting Python and Ray), efficiency against
   one process, and what coordination costs a chunk: the time in which no worker was in a call.

Run it alone on a machine: `python benchmarks/fanout.py --workers 1 2`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from golf.config import Job, load_job
from golf.data.documents import read_documents
from golf.data.prepare import embedded_corpus, prepare
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt
from golf.weights import save_weights

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, default=ROOT / "jobs" / "smoke.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--val-docs", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = _prepare(folder, arguments)
        alone = _measure(["golf", "eval"], folder / "alone", options)
        print(f"{'':>12} {'seconds':>8} {'efficiency':>10} {'busy':>6} {'coordination/chunk':>19}")
        print(f"{'one process':>12} {alone['seconds']:>8.2f}")
        for workers in arguments.workers:
            program = ["launcher.fanout", "--workers", str(workers)]
            _show(workers, _measure(program, folder / str(workers), options), alone)


def _prepare(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Data and weights; returns the options that all measurements share."""
    job = load_job(arguments.job, arguments.set)
    data, weights = folder / "data", folder / "w.safetensors"
    docs = folder / "docs.jsonl"
    texts = [text for text, _ in zip(read_documents(embedded_corpus()), range(60), strict=False)]
    docs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([docs], data, vocab_size=job.model.vocab_size, val_docs=arguments.val_docs, workers=1)
    save_weights(weights, _random_weights(job))
    settings = [word for setting in arguments.set for word in ("--set", setting)]
    return [
        *["--config", str(arguments.job), *settings, "--data", str(data), "--device", "cpu"],
        *["--checkpoint", str(weights), "--protocol", "ttt", "--json"],
    ]


def _random_weights(job: Job) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    model = build_gpt(job.model, choose_backend(cpu, torch.float32), cpu, torch.float32)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _measure(program: list[str], out: Path, options: list[str]) -> dict[str, Any]:
    """The result of one evaluation, and what its group last said of its workers."""
    words = [sys.executable, "-m", *program, *options, "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} exited with code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    progress = json.loads((out / "progress.json").read_text())
    return result | {"workers": progress.get("workers", [])}


def _show(workers: int, result: dict[str, Any], alone: dict[str, Any]) -> None:
    seconds = result["seconds"]
    busy = max(worker["busy"] for worker in result["workers"])
    efficiency = alone["seconds"] / seconds / workers
    idle_ms = 1000 * seconds * (1 - busy) / result["num_chunks"]
    label = f"{workers} worker{'s' * (workers > 1)}"
    print(f"{label:>12} {seconds:>8.2f} {efficiency:>10.0%} {busy:>6.1%} {idle_ms:>16.1f} ms")


if __name__ == "__main__":
    main()
