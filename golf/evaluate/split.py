"""How long a chunk takes under either schedule, and how many workers should adapt.

A worker's times come from `golf.evaluate.probe`, from a benchmark or from published figures; the
rest is arithmetic, without torch. What is left out: waiting for a disk, and workers that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from golf.config import Job


@dataclass(frozen=True, kw_only=True)
class Times:
    """What one worker needs, in seconds."""

    window_s: float
    """Scoring one window."""
    step_s: float
    """One SGD step, but for its rows: launches, clip, update."""
    row_s: float
    """Forward and backward of one row."""
    digest_s: float = 0.0
    reduce_s: float = 0.0
    """All-reduce of the gradients, once a step where several adapt together."""
    handover_s: float = 0.0
    """Weights from one that adapts to one that scores."""
    chunk_s: float = 0.0
    """Coordination, once a chunk: calls, ledger, progress."""


@dataclass(frozen=True, kw_only=True)
class ChunkWork:
    """What a whole chunk asks for."""

    windows: int
    step_rows: tuple[int, ...]
    """Rows of each SGD step, over all epochs."""

    @classmethod
    def of(cls, job: Job) -> ChunkWork:
        ttt = job.ttt
        rows = ttt.chunk_tokens // job.evaluate.eval_seq_len
        epoch = [min(ttt.batch_seqs, rows - first) for first in range(0, rows, ttt.batch_seqs)]
        return cls(
            windows=ttt.chunk_tokens // job.evaluate.stride, step_rows=tuple(epoch) * ttt.epochs
        )


def training_s(times: Times, work: ChunkWork, ranks: int) -> float:
    """A chunk's SGD steps and the digest after them, by `ranks` that share the rows."""
    reduce_s = times.reduce_s if ranks > 1 else 0.0
    steps_s = (times.step_s + -(-rows // ranks) * times.row_s + reduce_s for rows in work.step_rows)
    return sum(steps_s) + times.digest_s


def scoring_s(times: Times, work: ChunkWork, ranks: int) -> float:
    """A chunk's windows, by `ranks` that share them."""
    return -(-work.windows // ranks) * times.window_s


def strict_chunk_s(times: Times, work: ChunkWork, workers: int) -> float:
    """From one chunk to the next where all score, then all adapt."""
    return scoring_s(times, work, workers) + training_s(times, work, workers) + times.chunk_s


def adapter_chunk_s(times: Times, work: ChunkWork, adapters: int) -> float:
    """From one hand-over to the next."""
    return training_s(times, work, adapters) + times.handover_s + times.chunk_s


def scorer_chunk_s(times: Times, work: ChunkWork) -> float:
    """What one scorer needs for a whole chunk."""
    return times.handover_s + times.digest_s + scoring_s(times, work, 1) + times.chunk_s


def best_split(times: Times, work: ChunkWork, workers: int) -> int:
    """How many of `workers` (two or more) should adapt; the fewest, where several are as good."""

    def chunk_s(adapters: int) -> float:
        scorers = workers - adapters
        return max(adapter_chunk_s(times, work, adapters), scorer_chunk_s(times, work) / scorers)

    return min(range(1, workers), key=chunk_s)
