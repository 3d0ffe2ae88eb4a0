"""`golf eval`: one evaluation of one set of weights, from its plan to its result.

1. The plan (what is scored, with which weights, how and on what) is written first.
2. The protocol runs chunk by chunk over a group of replicas; its ledger is synced line by line,
   progress is rewritten as it goes, and `ttt` has the group write a checkpoint of weights and
   momentum now and then.
3. Should the group lose replicas, it is rebuilt, restored and brought up to the ledger.
4. The result is written last, so that its presence means a finished evaluation.

An interrupted evaluation resumes after its last recorded chunk and gives the same numbers bit for
bit; it may do so only under the same plan.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from golf.config import ConfigError
from golf.distributed import Ranks
from golf.evaluate.group import Group, LocalGroup, ReplicasLostError
from golf.evaluate.ledger import Ledger
from golf.evaluate.options import PROTOCOLS, EvalOptions
from golf.evaluate.progress import Progress
from golf.evaluate.ttt import ChunkedEvaluation, Nats, Totals
from golf.evaluate.validation import ValidationSet
from golf.evaluate.windows import Chunk, plan_windows, split_chunks
from golf.records import EvalPaths, RunError, read_json, read_lines, replace_file, write_json

Tell = Callable[[str], None]


def evaluate(
    options: EvalOptions,
    weights: dict[str, Tensor],
    validation: ValidationSet,
    ranks: Ranks,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Evaluate `weights` (float32, by the checkpoint's names) here; returns the result.

    Raises:
        ConfigError: an unknown protocol, or a resumed evaluation whose plan differs.
        RunError: an output folder in use, weights of another model, damaged files.
    """
    check_options(options)
    finished = already_evaluated(options, tell, ranks.barrier)
    if finished is not None:
        return finished
    group = LocalGroup(options, weights, validation.tokens, ranks)
    return evaluate_with(group, options, validation, tell)


def evaluate_with(
    group: Group, options: EvalOptions, validation: ValidationSet, tell: Tell
) -> dict[str, Any]:
    """Evaluate the weights that `group` was made with; as `evaluate` otherwise."""
    evaluation = _Evaluation(options, validation, group, tell)
    evaluation.resume()
    return evaluation.run()


def check_options(options: EvalOptions) -> None:
    """Refuse what no group here can do.

    Raises:
        ConfigError: an unknown protocol or schedule.
    """
    if options.protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {options.protocol!r} must be one of {', '.join(PROTOCOLS)}")
    if options.job.ttt.schedule == "pipelined" and options.protocol == "ttt":
        raise ConfigError(
            "ttt.schedule='pipelined' needs a group of workers that score beside those that adapt; "
            "golf eval runs ttt.schedule='strict'"
        )


def already_evaluated(
    options: EvalOptions, tell: Tell, barrier: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """The result, where the output folder holds it; None where there is work to do.

    Raises:
        RunError: the folder is in use and `resume` was not asked for.
    """
    paths = EvalPaths(options.out)
    started = paths.plan.exists()
    barrier()  # everyone has looked before anyone writes
    if started and not options.resume:
        raise RunError(
            f"{paths.root} already holds an evaluation; add --resume to go on with it, or name "
            "another --out"
        )
    result: dict[str, Any] | None = read_json(paths.result)
    if result is not None:
        tell(f"already evaluated: {paths.result}")
    return result


class _Evaluation:
    """One evaluation under way; it is the protocol's observer."""

    def __init__(
        self, options: EvalOptions, validation: ValidationSet, group: Group, tell: Tell
    ) -> None:
        self.options, self.group, self.tell = options, group, tell
        self.paths, job = EvalPaths(options.out), options.job
        self.adapts = options.protocol == "ttt"
        grid = plan_windows(len(validation.tokens), job.evaluate, options.protocol)
        self.chunks = split_chunks(grid, job.ttt.chunk_tokens)
        self.plan = self._plan(validation)
        plan_hash = hashlib.sha256(_plan_text(self.plan).encode()).hexdigest()
        ledger_path = self.paths.journal(options.protocol) if group.is_main else None
        self.ledger = Ledger(ledger_path, plan_hash, self.plan["weights"])
        self.chunked = ChunkedEvaluation(
            self.chunks,
            group,
            self.ledger,
            validation.count_bytes,
            grid.seq_len,
            job.ttt if self.adapts else None,
        )
        self.progress = Progress(self.paths, options.protocol, self.chunks, group, tell)
        self.nll_partial = self.paths.root / "nll.partial"
        self.behind = False
        """Whether the replicas have to be brought up to the ledger."""

    def _plan(self, validation: ValidationSet) -> dict[str, Any]:
        job = self.options.job
        return {
            "version": 1,
            "protocol": self.options.protocol,
            "schedule": job.ttt.schedule if self.adapts else None,
            "model": asdict(job.model),
            "evaluate": asdict(job.evaluate),
            "ttt": asdict(job.ttt) if self.adapts else None,
            "chunk_tokens": job.ttt.chunk_tokens,
            "validation": validation.identity(),
            "weights": self.group.digest(),
            **asdict(self.group.facts),
        }

    def resume(self) -> None:
        """Write the plan, or go on with an evaluation that was begun under the same one."""
        plan = json.loads(_plan_text(self.plan))
        before = read_json(self.paths.plan)
        lines = read_lines(self.paths.journal(self.options.protocol))
        self.group.barrier()  # everyone has read before anyone writes
        if before is None:
            if self.group.is_main:
                write_json(self.paths.plan, self.plan)
            return
        different = [key for key in plan if before.get(key) != plan[key]]
        if different:
            raise ConfigError(
                f"{self.paths.root} was begun with other {', '.join(different)}; resume it as it "
                "was begun, or name another --out"
            )
        self.chunked.continue_from(lines)
        self.behind = self.adapts
        self.progress.continue_from_file()
        self._cut_nll()
        if lines:
            self.tell(f"resuming after chunk {lines[-1]['chunk'] + 1} of {len(self.chunks)}")

    def _cut_nll(self) -> None:
        if not (self.options.save_nll and self.group.is_main):
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
        self.progress.start()
        try:
            totals = self._run_chunks()
        finally:
            self.ledger.close()
        result = self._result(totals)
        if self.group.is_main:
            if self.options.save_nll:
                self._finish_nll(totals)
            self.progress.write(len(self.chunks), totals)
            write_json(self.paths.result, result)
            self.nll_partial.unlink(missing_ok=True)  # until here a cut run resumes from it
        return result

    def _run_chunks(self) -> Totals:
        """Run the protocol; whatever the group loses on the way is made up for from the ledger."""
        lost: ReplicasLostError | None = None
        while True:
            try:
                if lost is not None:
                    self._recover(lost)
                if self.behind:
                    self.chunked.catch_up(self.group.restore())
                    self.behind = False
                return self.chunked.run(self)
            except ReplicasLostError as error:
                lost, self.behind = error, self.adapts

    def _recover(self, lost: ReplicasLostError) -> None:
        done, began = len(self.ledger.lines) // (2 if self.adapts else 1), time.perf_counter()
        event = {"chunk": done, "cause": str(lost), "rebuild_s": None}
        self.progress.recoveries.append(event)
        self.progress.write(done, self.chunked.totals)
        self.tell(f"rebuilding the group in chunk {done + 1}: {lost}")
        self.group.rebuild(lost)
        event["rebuild_s"] = time.perf_counter() - began

    def scored(self, chunk: Chunk, nll: Nats) -> None:
        if self.options.save_nll and self.group.is_main:
            with self.nll_partial.open("ab") as file:
                file.write(nll.astype("<f4").tobytes())

    def finished(self, chunk: Chunk) -> None:
        self.group.barrier()
        done, every = chunk.index + 1, self.options.job.ttt.checkpoint_chunks
        if not self.group.is_main:
            return
        if self.adapts and done % every == 0 and done < len(self.chunks):
            self.group.save(done)
        if self.progress.due:
            self.progress.write(done, self.chunked.totals)

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
            "seconds": self.progress.seconds,
            **{key: self.plan[key] for key in plan_keys},
            "num_chunks": len(self.chunks),
            "recoveries": self.progress.recoveries,
            "ledger_head": self.ledger.head,
        }

    def _finish_nll(self, totals: Totals) -> None:
        nll = np.fromfile(self.nll_partial, "<f4")
        assert len(nll) == totals.tokens
        with replace_file(self.paths.nll) as temporary, temporary.open("wb") as file:
            np.save(file, nll)


def _plan_text(plan: dict[str, Any]) -> str:
    """The plan as `write_json` writes it, which is what the ledger's chain starts from."""
    return json.dumps(plan, indent=2) + "\n"
