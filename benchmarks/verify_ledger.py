"""How long `golf verify` takes over a FineWeb-size evaluation: 1,893 chunks, 3,785 lines.

The ledgers are made here by the code that writes them, with made-up sums and digests: sound in
everything that the files alone can show. Run: `python benchmarks/verify_ledger.py`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from golf.config import Job, load_job
from golf.evaluate.ledger import Ledger, encode_line
from golf.evaluate.provenance import ProvenanceLedger
from golf.evaluate.ttt import Totals, learning_rate
from golf.evaluate.verify import verify
from golf.evaluate.windows import Chunk, plan_windows, split_chunks
from golf.records import EvalPaths, write_json

ROOT = Path(__file__).resolve().parents[1]
FINEWEB_TOKENS = 62_021_846
DELAY = 3
"""Chunks by which the made-up scores of a pipelined evaluation come behind the training."""


def made_up_digest(trained: int) -> str:
    return hashlib.sha256(str(trained).encode()).hexdigest()


def make_evaluation(folder: Path, schedule: Literal["strict", "pipelined"]) -> int:
    """Leave a finished evaluation of the record job in `folder`; returns its number of chunks."""
    record = load_job(ROOT / "jobs" / "record.toml")
    job = replace(record, ttt=replace(record.ttt, schedule=schedule))
    paths, plan = EvalPaths(folder), _plan(job)
    write_json(paths.plan, plan)
    plan_hash = hashlib.sha256(paths.plan.read_bytes()).hexdigest()
    grid = plan_windows(FINEWEB_TOKENS, job.evaluate, "ttt")
    chunks = split_chunks(grid, job.ttt.chunk_tokens)
    fill = _fill_strict if schedule == "strict" else _fill_pipelined
    ledger = fill(plan_hash, job, chunks)
    paths.ledger.write_bytes(b"".join(encode_line(line) + b"\n" for line in ledger.lines))
    write_json(paths.result, _result(plan, ledger))
    return len(chunks)


def _plan(job: Job) -> dict[str, Any]:
    return {
        "version": 1,
        "protocol": "ttt",
        "schedule": job.ttt.schedule,
        "model": asdict(job.model),
        "evaluate": asdict(job.evaluate),
        "ttt": asdict(job.ttt),
        "chunk_tokens": job.ttt.chunk_tokens,
        "validation": {"tokens": FINEWEB_TOKENS},
        "weights": made_up_digest(0),
    }


def _nats(chunk: Chunk) -> float:
    return 1.93 * (chunk.score_end - chunk.score_start) + chunk.index / 7


def _fill_strict(plan_hash: str, job: Job, chunks: list[Chunk]) -> Ledger:
    ledger = Ledger(None, plan_hash, made_up_digest(0))
    for chunk in chunks:
        start, end = chunk.score_start, chunk.score_end
        ledger.score(
            chunk=chunk.index, start=start, end=end, nll_sum=_nats(chunk), num_bytes=2 * end
        )
        _train(ledger, job, chunks, chunk.index)
    return ledger


def _fill_pipelined(plan_hash: str, job: Job, chunks: list[Chunk]) -> Ledger:
    ledger = ProvenanceLedger(None, plan_hash, made_up_digest(0), chunks)
    for index in range(len(chunks) + DELAY):
        _train(ledger, job, chunks, index)
        if index >= DELAY:
            chunk = chunks[index - DELAY]
            weights = made_up_digest(chunk.index)
            ledger.score_by(
                chunk=chunk, nll_sum=_nats(chunk), num_bytes=2 * chunk.score_end, weights=weights
            )
    return ledger


def _train(ledger: Ledger, job: Job, chunks: list[Chunk], index: int) -> None:
    if index >= len(chunks) - 1:
        return
    chunk = chunks[index]
    ledger.train(
        chunk=index,
        start=chunk.start,
        end=chunk.start + chunk.num_rows * job.evaluate.eval_seq_len,
        lr=learning_rate(job.ttt, index, len(chunks)),
        steps=job.ttt.epochs * -(-chunk.num_rows // job.ttt.batch_seqs),
        weights=made_up_digest(index + 1),
    )


def _result(plan: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    totals = Totals()
    for line in sorted((x for x in ledger.lines if x["kind"] == "score"), key=lambda x: x["chunk"]):
        totals.add(line)
    return {
        "val_loss": totals.val_loss,
        "val_bpb": totals.val_bpb,
        "tokens": totals.tokens,
        "bytes": totals.bytes,
        "nll_sum_nats": totals.nll_sum,
        "ledger_head": ledger.head,
        **{key: plan[key] for key in ("protocol", "schedule", "weights")},
    }


def measure() -> dict[str, dict[str, float]]:
    """Seconds of the check itself and of the whole command, for either schedule."""
    found = {}
    for schedule in ("strict", "pipelined"):
        with tempfile.TemporaryDirectory() as name:
            num_chunks = make_evaluation(Path(name), schedule)
            began = time.perf_counter()
            verdicts = verify(Path(name))
            check_s = time.perf_counter() - began
            assert all(verdict.ok for verdict in verdicts), verdicts
            began = time.perf_counter()
            words = [sys.executable, "-m", "golf", "verify", name, "--json"]
            done = subprocess.run(words, check=True, capture_output=True)
            command_s = time.perf_counter() - began
            assert json.loads(done.stdout)["valid"]
        found[schedule] = {"chunks": num_chunks, "check_s": check_s, "command_s": command_s}
    return found


def show(figures: dict[str, dict[str, float]]) -> None:
    for schedule, found in figures.items():
        print(
            f"golf verify, {schedule} ledger of {found['chunks']:,} chunks: "
            f"{found['check_s']:.2f} s ({found['command_s']:.2f} s with starting Python)"
        )


if __name__ == "__main__":
    show(measure())
