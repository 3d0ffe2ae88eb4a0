"""`golf verify`: proves a finished `ttt` evaluation from its files.

1. Chain: every line carries the hash of the one before, the first the plan's, the result the last.
2. Order: a chunk's score comes before its training, chunk after chunk, none added or missing.
3. Coverage: the scored ranges are exactly those of the plan's windows, each position once.
4. Lineage: the weights that score are those that the training before left behind.
5. Training: rows, steps and learning rates are the plan's.
6. Totals: the result's sums and ratios are those of the lines.

A `pipelined` evaluation is held to provenance instead of that order: its scores may come in any
order, each by weights that have trained on exactly the chunks before (`golf.evaluate.provenance`).

Whether the numbers themselves are true only `golf.evaluate.replay` can tell.
Nothing here needs torch or the model: a ledger of thousands of chunks takes well under a second.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golf.config import ConfigError, EvaluateConfig, Job, TTTConfig, job_from_sections
from golf.evaluate.ledger import line_hash
from golf.evaluate.provenance import lineage_problems, order_problems
from golf.evaluate.ttt import Totals, learning_rate
from golf.evaluate.windows import Chunk, plan_windows, split_chunks
from golf.records import EvalPaths


class NoLedgerError(ConfigError):
    """The folder holds no ledger to verify."""


@dataclass(frozen=True)
class Verdict:
    """One property of the ledger and what contradicts it, if anything."""

    name: str
    problem: str | None
    note: str = ""
    """What was looked at, where that is not always the same."""

    @property
    def ok(self) -> bool:
        return self.problem is None


def verify(folder: Path) -> list[Verdict]:
    """Check a finished evaluation; every verdict must be ok.

    Raises:
        NoLedgerError: there is no ledger in the folder.
    """
    paths = EvalPaths(folder)
    if not paths.ledger.exists():
        raise NoLedgerError(
            f"{folder} holds no {paths.ledger.name}: only `golf eval --protocol ttt` writes one"
        )
    try:
        files = EvalFiles.read(paths)
    except _BrokenFileError as broken:
        return [Verdict("files", str(broken))]
    checks = {
        "chain": _chain,
        "order": _order,
        "coverage": _coverage,
        "lineage": _lineage,
        "training": _training,
        "totals": _totals,
    }
    notes = {"order": "by provenance: pipelined schedule"} if files.pipelined else {}
    return [Verdict("files", None)] + [
        Verdict(name, next(iter(_guarded(check(files))), None), notes.get(name, ""))
        for name, check in checks.items()
    ]


class _BrokenFileError(Exception):
    """A file that cannot be read as what it should be."""


@dataclass(frozen=True)
class EvalFiles:
    """A finished evaluation, read and parsed."""

    plan_hash: str
    raw_lines: list[bytes]
    lines: list[dict[str, Any]]
    result: dict[str, Any]
    plan: dict[str, Any]
    chunks: list[Chunk]
    job: Job

    @classmethod
    def read(cls, paths: EvalPaths) -> EvalFiles:
        plan_bytes = _read(paths.plan)
        raw = _read(paths.ledger)
        if not raw.endswith(b"\n"):
            raise _BrokenFileError(f"{paths.ledger.name} ends in half a line")
        raw_lines = raw[:-1].split(b"\n")
        plan, result = _json(plan_bytes, paths.plan), _json(_read(paths.result), paths.result)
        lines = [_json(line, paths.ledger, i + 1) for i, line in enumerate(raw_lines)]
        try:
            job = job_from_sections({key: plan[key] for key in ("model", "evaluate", "ttt")})
            grid = plan_windows(plan["validation"]["tokens"], job.evaluate, plan["protocol"])
            chunks = split_chunks(grid, plan["chunk_tokens"])
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise _BrokenFileError(
                f"{paths.plan.name} describes no evaluation ({error!r})"
            ) from error
        plan_hash = hashlib.sha256(plan_bytes).hexdigest()
        return cls(plan_hash, raw_lines, lines, result, plan, chunks, job)

    @property
    def pipelined(self) -> bool:
        return self.plan.get("schedule") == "pipelined"

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The score lines in the order of the chunks."""
        scores = [line for line in self.lines if line.get("kind") == "score"]
        return sorted(scores, key=lambda line: int(line["chunk"])) if self.pipelined else scores

    @property
    def trains(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("kind") == "train"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _BrokenFileError(
            f"{path.name} cannot be read ({error.strerror}); was it finished?"
        ) from error


def _json(text: bytes, path: Path, number: int | None = None) -> dict[str, Any]:
    where = path.name if number is None else f"{path.name} line {number}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _BrokenFileError(f"{where} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise _BrokenFileError(f"{where} is no JSON object")
    return value


def _guarded(problems: Iterator[str]) -> Iterator[str]:
    """A line without a field, or with one of another type, is a problem and no crash."""
    try:
        yield from problems
    except (KeyError, TypeError, ValueError, IndexError) as error:
        yield f"a line lacks a field or holds something else there ({error!r})"


def _chain(files: EvalFiles) -> Iterator[str]:
    head = files.plan_hash
    for number, (raw, line) in enumerate(zip(files.raw_lines, files.lines, strict=True), 1):
        if line["previous"] != head:
            yield f"line {number} does not carry the hash of what precedes it"
        head = line_hash(raw)
    if files.result["ledger_head"] != head:
        yield "result.json names another last line (ledger_head)"


def _order(files: EvalFiles) -> Iterator[str]:
    if files.pipelined:
        yield from order_problems(enumerate(files.lines, 1), len(files.chunks))
        return
    wanted = [(kind, c.index) for c in files.chunks for kind in ("score", "train")][:-1]
    found = [(line["kind"], line["chunk"]) for line in files.lines]
    for number, (have, want) in enumerate(zip(found, wanted, strict=False), 1):
        if have != want:
            yield f"line {number} is {have[0]} of chunk {have[1]}, not {want[0]} of chunk {want[1]}"
    if len(found) != len(wanted):
        yield f"{len(found)} lines, not the {len(wanted)} of {len(files.chunks)} chunks"


def _coverage(files: EvalFiles) -> Iterator[str]:
    for line, chunk in zip(files.scores, files.chunks, strict=False):
        if (line["start"], line["end"]) != (chunk.score_start, chunk.score_end):
            yield (
                f"chunk {chunk.index} scores [{line['start']}, {line['end']}), its windows are "
                f"[{chunk.score_start}, {chunk.score_end})"
            )
        if line["tokens"] != line["end"] - line["start"]:
            yield f"chunk {chunk.index} counts {line['tokens']} tokens in its range"
    if files.result["tokens"] != files.chunks[-1].score_end:
        yield f"the result counts {files.result['tokens']} tokens of {files.chunks[-1].score_end}"


def _lineage(files: EvalFiles) -> Iterator[str]:
    weights = files.plan["weights"]
    if files.result["weights"] != weights:
        yield "result.json names other starting weights than the plan"
    if files.pipelined:
        yield from lineage_problems(enumerate(files.lines, 1), weights)
        return
    for number, line in enumerate(files.lines, 1):
        if line["kind"] == "train":
            weights = line["weights"]
        elif line["weights"] != weights:
            yield f"line {number} is scored with weights that no line before left behind"


def _training(files: EvalFiles) -> Iterator[str]:
    config: TTTConfig = files.job.ttt
    evaluate: EvaluateConfig = files.job.evaluate
    for line, chunk in zip(files.trains, files.chunks, strict=False):
        end = chunk.start + chunk.num_rows * evaluate.eval_seq_len
        if (line["start"], line["end"]) != (chunk.start, end) or end > chunk.score_end:
            yield f"chunk {chunk.index} trains on [{line['start']}, {line['end']})"
        if line["lr"] != learning_rate(config, chunk.index, len(files.chunks)):
            yield f"chunk {chunk.index} trains at learning rate {line['lr']}"
        if line["steps"] != config.epochs * -(-chunk.num_rows // config.batch_seqs):
            yield f"chunk {chunk.index} takes {line['steps']} steps"


def _totals(files: EvalFiles) -> Iterator[str]:
    totals = Totals()
    for line in files.scores:
        if not (math.isfinite(line["nll_sum"]) and line["bytes"] >= 0):
            yield f"chunk {line['chunk']} sums to {line['nll_sum']} nats over {line['bytes']} bytes"
        totals.add(line)
    wanted = {
        "nll_sum_nats": totals.nll_sum,
        "tokens": totals.tokens,
        "bytes": totals.bytes,
        "val_loss": totals.val_loss,
        "val_bpb": totals.val_bpb,
    }
    for key, value in wanted.items():
        if files.result[key] != value:
            yield f"result.json says {key} {files.result[key]}, the lines sum to {value}"
    for key in ("protocol", "schedule"):
        if files.result[key] != files.plan[key]:
            yield f"result.json names another {key} than the plan"
    if files.job.ttt.schedule != files.plan["schedule"]:
        yield "the plan's schedule is not that of its settings"
