"""`golf eval`: one evaluation of one set of weights, from its plan to its result.

1. The plan (what is scored, with which weights, how and on what) is written first.
2. The protocol runs chunk by chunk over a group of replicas; its ledger is synced line by line,
   progress is rewritten as it goes, and `ttt` has the group write a checkpoint of weights and
   momentum now and then.
3. Should the group lose replicas, it is rebuilt, restored and brought up to the ledger.
   Under the pipelined schedule the chunks overlap, and their lines come as things happen.
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
from golf.evaluate.pipelined import Pipeline, PipelinedEvaluation
from golf.evaluate.progress import Progress
from golf.evaluate.provenance import ProvenanceLedger
from golf.evaluate.ttt import ChunkedEvaluation, Nats, Totals
from golf.evaluate.validation import ValidationSet
from golf.evaluate.windows import Chunk, plan_windows, split_chunks
from golf.records import EvalPaths, RunError, read_json, read_lines, replace_file, write_json

Tell = Callable[[str], None]
_NO_NATS = np.zeros(0, np.float32)


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
    if options.job.ttt.schedule == "pipelined" and options.protocol == "ttt":
        raise ConfigError(
            "ttt.schedule='pipelined' needs workers that score beside those that adapt: evaluate "
            "with python -m launcher.fanout --workers N (golf-launch does where fanout.workers is "
            "set), or --set ttt.schedule=strict"
        )
    finished = already_evaluated(options, tell, ranks.barrier)
    if finished is not None:
        return finished
    group = LocalGroup(options, weights, validation.tokens, ranks)
    return evaluate_with(group, options, validation, tell)


def evaluate_with(
    group: Group | Pipeline, options: EvalOptions, validation: ValidationSet, tell: Tell
) -> dict[str, Any]:
    """Evaluate the weights that `group` was made with; as `evaluate` otherwise.

    A `Pipeline` runs the pipelined schedule, which must be the job's, any other group the strict.
    """
    evaluation = _Evaluation(options, validation, group, tell)
    evaluation.resume()
    return evaluation.run()


def check_options(options: EvalOptions) -> None:
    """Refuse what no group can do.

    Raises:
        ConfigError: an unknown protocol.
    """
    if options.protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {options.protocol!r} must be one of {', '.join(PROTOCOLS)}")


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
        self,
        options: EvalOptions,
        validation: ValidationSet,
        group: Group | Pipeline,
        tell: Tell,
    ) -> None:
        self.options, self.group, self.tell = options, group, tell
        self.paths, job = EvalPaths(options.out), options.job
        self.adapts = options.protocol == "ttt"
        grid = plan_windows(len(validation.tokens), job.evaluate, options.protocol)
        self.chunks = split_chunks(grid, job.ttt.chunk_tokens)
        self.plan = self._plan(validation)
        self.ledger, self.chunked = self._begin(validation, grid.seq_len)
        self.progress = Progress(self.paths, options.protocol, self.chunks, group, tell)
        self.nll_partial = self.paths.root / "nll.partial"
        self.behind = False
        """Whether the replicas have to be brought up to the ledger."""

    def _begin(
        self, validation: ValidationSet, seq_len: int
    ) -> tuple[Ledger, ChunkedEvaluation | PipelinedEvaluation]:
        """The empty ledger and the protocol over this group."""
        group, ttt, chunks = self.group, self.options.job.ttt, self.chunks
        path = self.paths.journal(self.options.protocol) if group.is_main else None
        plan_hash = hashlib.sha256(_plan_text(self.plan).encode()).hexdigest()
        start, count_bytes = self.plan["weights"], validation.count_bytes
        if isinstance(group, Pipeline):
            assert self.plan["schedule"] == "pipelined"
            proof = ProvenanceLedger(path, plan_hash, start, chunks)
            return proof, PipelinedEvaluation(chunks, group, proof, count_bytes, seq_len, ttt)
        assert self.plan["schedule"] in ("strict", None)
        ledger = Ledger(path, plan_hash, start)
        adapts = ttt if self.adapts else None
        return ledger, ChunkedEvaluation(chunks, group, ledger, count_bytes, seq_len, adapts)

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
            self.tell(f"resuming after chunk {self.chunked.num_done} of {len(self.chunks)}")

    def _cut_nll(self) -> None:
        if not (self.options.save_nll and self.group.is_main):
            return
        # Who is cut off writes scores first and records them then: some may be of no chunk yet.
        nll = np.fromfile(self.nll_partial, "<f4") if self.nll_partial.exists() else _NO_NATS
        scores = [line for line in self.ledger.lines if line["kind"] == "score"]
        for line in scores:
            held = nll[line["start"] : line["end"]].copy()
            if held.sum(dtype=np.float64) != line["nll_sum"]:
                raise ConfigError(
                    f"{self.paths.root} does not hold the scores of chunk {line['chunk']}; if it "
                    "was begun without --save-nll, resume without it, else start over"
                )
        with self.nll_partial.open("ab") as file:
            file.truncate(max((line["end"] * 4 for line in scores), default=0))

    def run(self) -> dict[str, Any]:
        """Run what is left and write the result."""
        self.progress.start()
        try:
            totals = self._run_chunks()
            self.group.settle()
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
                    self.chunked.catch_up(self.group.restore(self.chunked.restore_limit))
                    self.behind = False
                return self.chunked.run(self)
            except ReplicasLostError as error:
                lost, self.behind = error, self.adapts

    def _recover(self, lost: ReplicasLostError) -> None:
        done, began = self.chunked.num_done, time.perf_counter()
        event = {"chunk": done, "cause": str(lost), "rebuild_s": None}
        self.progress.recoveries.append(event)
        self.progress.write(done, self.chunked.totals)
        self.tell(f"rebuilding the group in chunk {done + 1}: {lost}")
        self.group.rebuild(lost)
        event["rebuild_s"] = time.perf_counter() - began

    def scored(self, chunk: Chunk, nll: Nats) -> None:
        if self.options.save_nll and self.group.is_main:
            self.nll_partial.touch()
            with self.nll_partial.open("r+b") as file:
                file.seek(4 * chunk.score_start)
                file.write(nll.astype("<f4").tobytes())

    def finished(self, chunk: Chunk) -> None:
        self.group.barrier()
        if not self.group.is_main:
            return
        if not isinstance(self.group, Pipeline):  # its adapters are further on, and save by task
            done, every = chunk.index + 1, self.options.job.ttt.checkpoint_chunks
            if self.adapts and done % every == 0 and done < len(self.chunks):
                self.group.save(done)
        if self.progress.due:
            self.progress.write(self.chunked.num_done, self.chunked.totals)

    def _result(self, totals: Totals) -> dict[str, Any]:
        group = self.group
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
            **({"num_scorers": group.num_scorers} if isinstance(group, Pipeline) else {}),
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
