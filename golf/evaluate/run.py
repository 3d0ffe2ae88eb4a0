"""`golf eval`: one evaluation of one set of weights, from its plan to its result.

1. The plan (what is scored, with which weights, how and on what) is written first.
2. The protocol runs chunk by chunk; its ledger is synced line by line, progress is rewritten as it
   goes, and `ttt` writes a checkpoint of weights and momentum now and then.
3. The result is written last, so that its presence means a finished evaluation.

An interrupted evaluation resumes after its last recorded chunk and gives the same numbers bit for
bit; it may do so only under the same plan.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golf.checkpoints import Checkpoints
from golf.config import ConfigError, Job
from golf.distributed import Ranks
from golf.evaluate.ledger import Ledger
from golf.evaluate.replica import Replica
from golf.evaluate.ttt import ChunkedEvaluation, Nats, Totals
from golf.evaluate.validation import ValidationSet
from golf.evaluate.windows import Chunk, plan_windows, split_chunks
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt
from golf.records import EvalPaths, RunError, read_json, read_lines, write_json
from golf.weights import check_weights

PROTOCOLS = ("sequential", "sliding", "ttt")
PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How one evaluation is run."""

    job: Job
    protocol: str
    out: Path
    dtype: torch.dtype
    save_nll: bool = False
    resume: bool = False
    compiled: bool = False
    attention: str | None = None
    """Name of the attention backend; None takes the best there is."""


def evaluate(
    options: EvalOptions,
    weights: dict[str, Tensor],
    validation: ValidationSet,
    ranks: Ranks,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Evaluate `weights` (float32, by the checkpoint's names); returns the result.

    Raises:
        ConfigError: an unknown protocol, or a resumed evaluation whose plan differs.
        RunError: an output folder in use, weights of another model, damaged files.
    """
    if options.protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {options.protocol!r} must be one of {', '.join(PROTOCOLS)}")
    if options.job.ttt.schedule == "pipelined" and options.protocol == "ttt":
        raise ConfigError(
            "ttt.schedule='pipelined' needs a group of workers that score beside those that adapt; "
            "golf eval runs ttt.schedule='strict'"
        )
    paths = EvalPaths(options.out)
    finished = _finished(paths, options, ranks)
    if finished is not None:
        tell(f"already evaluated: {paths.result}")
        return finished
    evaluation = _Evaluation(options, weights, validation, ranks, tell)
    evaluation.resume()
    return evaluation.run()


def _finished(paths: EvalPaths, options: EvalOptions, ranks: Ranks) -> dict[str, Any] | None:
    started = paths.plan.exists()
    ranks.barrier()
    if started and not options.resume:
        raise RunError(
            f"{paths.root} already holds an evaluation; add --resume to go on with it, or name "
            "another --out"
        )
    result: dict[str, Any] | None = read_json(paths.result)
    return result


class _Evaluation:
    """One evaluation under way; it is the protocol's observer."""

    def __init__(
        self,
        options: EvalOptions,
        weights: dict[str, Tensor],
        validation: ValidationSet,
        ranks: Ranks,
        tell: Callable[[str], None],
    ) -> None:
        self.options, self.ranks, self.tell = options, ranks, tell
        self.paths, job = EvalPaths(options.out), options.job
        backend = choose_backend(ranks.device, options.dtype, options.attention)
        model = build_gpt(job.model, backend, ranks.device, options.dtype)
        check_weights(weights, {name: p.shape for name, p in model.named_parameters()})
        model.load_state_dict(weights)
        grid = plan_windows(len(validation.tokens), job.evaluate, options.protocol)
        self.replica = Replica(model, validation.tokens, grid, ranks, job, options.compiled)
        self.attention = backend.name
        self.plan = self._plan(validation)
        plan_hash = hashlib.sha256(_plan_text(self.plan).encode()).hexdigest()
        self.chunks = split_chunks(grid, job.ttt.chunk_tokens)
        ledger_path = self.paths.journal(options.protocol) if ranks.is_main else None
        self.ledger = Ledger(ledger_path, plan_hash, self.plan["weights"])
        self.chunked = ChunkedEvaluation(
            self.chunks,
            self.replica,
            self.ledger,
            validation.count_bytes,
            grid.seq_len,
            job.ttt if options.protocol == "ttt" else None,
        )
        self.checkpoints = Checkpoints(self.paths.checkpoints, "chunk")
        self.nll_partial = self.paths.root / "nll.partial"
        self.seconds_before = 0.0
        self.started = self.progress_told = time.perf_counter()

    def _plan(self, validation: ValidationSet) -> dict[str, Any]:
        job, ttt = self.options.job, self.options.protocol == "ttt"
        return {
            "version": 1,
            "protocol": self.options.protocol,
            "schedule": job.ttt.schedule if ttt else None,
            "model": asdict(job.model),
            "evaluate": asdict(job.evaluate),
            "ttt": asdict(job.ttt) if ttt else None,
            "chunk_tokens": job.ttt.chunk_tokens,
            "validation": validation.identity(),
            "weights": self.replica.digest(),
            "attention": self.attention,
            "device": self.ranks.device.type,
            "dtype": str(self.options.dtype).removeprefix("torch."),
            "world_size": self.ranks.world_size,
            "compiled": self.options.compiled,
        }

    def resume(self) -> None:
        """Write the plan, or go on with an evaluation that was begun under the same one."""
        plan = json.loads(_plan_text(self.plan))
        before = read_json(self.paths.plan)
        lines = read_lines(self.paths.journal(self.options.protocol))
        self.ranks.barrier()  # everyone has read before anyone writes
        if before is None:
            if self.ranks.is_main:
                self.paths.root.mkdir(parents=True, exist_ok=True)
                self.paths.plan.write_text(_plan_text(self.plan))
            return
        different = [key for key in plan if before.get(key) != plan[key]]
        if different:
            raise ConfigError(
                f"{self.paths.root} was begun with other {', '.join(different)}; resume it as it "
                "was begun, or name another --out"
            )
        self._restore(lines)

    def _restore(self, lines: list[dict[str, Any]]) -> None:
        trained = 0
        checkpoint = self.checkpoints.load_newest() if self.options.protocol == "ttt" else None
        if checkpoint is not None:
            trained = int(checkpoint.metadata["trained_chunks"])
            self.replica.load_state(checkpoint.tensors)
        self.chunked.resume(lines, trained)
        progress = read_json(self.paths.progress) or {}
        self.seconds_before = float(progress.get("elapsed_s", 0.0))
        self._cut_nll()
        if lines:
            self.tell(f"resuming after chunk {lines[-1]['chunk'] + 1} of {len(self.chunks)}")

    def _cut_nll(self) -> None:
        if not (self.options.save_nll and self.ranks.is_main):
            return
        wanted = self.ledger.scored_end * 4
        if wanted and (not self.nll_partial.exists() or self.nll_partial.stat().st_size < wanted):
            raise ConfigError(
                f"{self.paths.root} was begun without --save-nll; resume without it, or start over"
            )
        with self.nll_partial.open("ab") as file:
            file.truncate(wanted)

    def run(self) -> dict[str, Any]:
        """Run what is left and write the result."""
        self.started = time.perf_counter()
        try:
            totals = self.chunked.run(self)
        finally:
            self.ledger.close()
        result = self._result(totals)
        if self.ranks.is_main:
            if self.options.save_nll:
                self._finish_nll(totals)
            self._write_progress(len(self.chunks))
            write_json(self.paths.result, result)
        return result

    def scored(self, chunk: Chunk, nll: Nats) -> None:
        if self.options.save_nll and self.ranks.is_main:
            with self.nll_partial.open("ab") as file:
                file.write(nll.astype("<f4").tobytes())

    def finished(self, chunk: Chunk) -> None:
        self.ranks.barrier()
        done, every = chunk.index + 1, self.options.job.ttt.checkpoint_chunks
        if not self.ranks.is_main:
            return
        if self.options.protocol == "ttt" and done % every == 0 and done < len(self.chunks):
            self.checkpoints.save(done, self.replica.state(), {"trained_chunks": str(done)})
        if time.perf_counter() - self.progress_told > PROGRESS_EVERY_S:
            self._write_progress(done)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _write_progress(self, done: int) -> None:
        self.progress_told, totals = time.perf_counter(), self.chunked.totals
        progress = {
            "protocol": self.options.protocol,
            "chunk": done,
            "num_chunks": len(self.chunks),
            "tokens": totals.tokens,
            "num_tokens": self.replica.grid.num_positions,
            "val_loss": totals.val_loss,
            "val_bpb": totals.val_bpb,
            "elapsed_s": self.seconds,
        }
        write_json(self.paths.progress, progress)
        self.tell(
            f"{self.options.protocol} chunk {done}/{len(self.chunks)}  "
            f"val_loss {totals.val_loss:.4f}  val_bpb {totals.val_bpb:.4f}  {self.seconds:.0f} s"
        )

    def _result(self, totals: Totals) -> dict[str, Any]:
        plan_keys = (
            "protocol",
            "schedule",
            "attention",
            "device",
            "dtype",
            "world_size",
            "weights",
        )
        return {
            "val_loss": totals.val_loss,
            "val_bpb": totals.val_bpb,
            "tokens": totals.tokens,
            "bytes": totals.bytes,
            "nll_sum_nats": totals.nll_sum,
            "seconds": self.seconds,
            **{key: self.plan[key] for key in plan_keys},
            "num_chunks": len(self.chunks),
            "ledger_head": self.ledger.head,
        }

    def _finish_nll(self, totals: Totals) -> None:
        nll = np.fromfile(self.nll_partial, "<f4")
        assert len(nll) == totals.tokens
        temporary = self.paths.nll.with_suffix(".tmp.npy")
        np.save(temporary, nll)
        temporary.replace(self.paths.nll)
        self.nll_partial.unlink()


def _plan_text(plan: dict[str, Any]) -> str:
    return json.dumps(plan, indent=2) + "\n"
