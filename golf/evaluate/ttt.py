"""The evaluation protocol, chunk by chunk: score, record, then (for `ttt`) train.

1. Score all windows of the chunk with the current weights.
2. Record sums and the weights' digest; the line is on disk before anything is trained on.
3. Unless it is the last chunk, take the chunk's SGD steps and record the new weights' digest.

The protocol knows no transport: `Replicas` is what it asks of one process, of torchrun's ranks or
of any other group. Legality: parameter-golf issue 1017; test-time training as
in its pull requests 461, 549 and 691 (score-first form).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from golf.config import TTTConfig
from golf.evaluate.ledger import Ledger, LegalityError
from golf.evaluate.windows import Chunk
from golf.records import RunError

Nats = np.ndarray[tuple[int], np.dtype[np.float32]]


class Replicas(Protocol):
    """One or more equal copies of the model that score and adapt together."""

    def score(self, windows: range) -> Nats: ...
    def adapt(self, start: int, num_rows: int, lr: float) -> int: ...
    def digest(self) -> str: ...


class Observer(Protocol):
    """Who keeps what the protocol produces on the way."""

    def scored(self, chunk: Chunk, nll: Nats) -> None:
        """The chunk's scores, before they are recorded in the ledger."""

    def finished(self, chunk: Chunk) -> None:
        """The chunk is recorded and, where that is due, trained on."""


@dataclass
class Totals:
    """Sums over everything scored so far."""

    nll_sum: float = 0.0
    tokens: int = 0
    bytes: int = 0

    def add(self, line: dict[str, Any]) -> None:
        """Take in a ledger's score line."""
        self.nll_sum += line["nll_sum"]
        self.tokens += line["tokens"]
        self.bytes += line["bytes"]

    @property
    def val_loss(self) -> float:
        """Nats a token."""
        return self.nll_sum / max(self.tokens, 1)

    @property
    def val_bpb(self) -> float:
        """Bits a byte, from pooled sums."""
        return self.nll_sum / math.log(2) / max(self.bytes, 1)


def learning_rate(config: TTTConfig, chunk: int, num_chunks: int) -> float:
    """SGD's rate on `chunk`: a cosine from `config.lr` at the first chunk to 0 at the last."""
    return config.lr * 0.5 * (1 + math.cos(math.pi * chunk / max(num_chunks - 1, 1)))


def sum_of(chunk: Chunk, nll: Nats) -> float:
    """The chunk's scores, summed.

    Raises:
        RunError: they are no numbers.
    """
    assert len(nll) == chunk.score_end - chunk.score_start
    nll_sum = float(nll.sum(dtype=np.float64))
    if not math.isfinite(nll_sum):
        raise RunError(f"chunk {chunk.index} scores to {nll_sum}: these weights are no model")
    return nll_sum


class ChunkedEvaluation:
    """Runs the chunks of one evaluation over its replicas, and can take one up half-way."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        replicas: Replicas,
        ledger: Ledger,
        count_bytes: Callable[[int, int], int],
        seq_len: int,
        ttt: TTTConfig | None,
    ) -> None:
        self.chunks, self.replicas, self.ledger = chunks, replicas, ledger
        self.count_bytes, self.seq_len, self.ttt = count_bytes, seq_len, ttt
        self.totals = Totals()

    restore_limit: int | None = None
    """Any checkpoint will do: none is ahead of the scores."""

    @property
    def num_done(self) -> int:
        """Chunks that are recorded and, where that is due, trained on."""
        return len(self.ledger.lines) // (2 if self.ttt else 1)

    def continue_from(self, lines: list[dict[str, Any]]) -> None:
        """Take over what an interrupted evaluation has recorded."""
        self.ledger.continue_from(lines)
        for line in lines:
            if line["kind"] == "score":
                self.totals.add(line)

    def catch_up(self, trained: int) -> None:
        """Bring replicas that have trained on the first `trained` chunks up to the ledger.

        Chunks that were trained on since are trained on again, all of them scored before, and must
        give the weights that the ledger names.

        Raises:
            LegalityError: they give others, so the numbers could not be those of one run.
        """
        for line in self.ledger.lines:
            if line["kind"] == "score" or line["chunk"] < trained - 1:
                continue
            if line["chunk"] >= trained:
                self._adapt(self.chunks[line["chunk"]])
            if self.replicas.digest() != line["weights"]:
                raise LegalityError(
                    f"repeating the training on chunk {line['chunk']} gives other weights than "
                    "before; resume on the same kind of machine and number of ranks, or start "
                    "over in a new folder"
                )

    def run(self, observer: Observer) -> Totals:
        """Score every chunk that is left, and train on each but the last.

        The last chunk is only scored: nothing would use what it teaches.
        """
        lines = self.ledger.lines
        num_scored = sum(line["kind"] == "score" for line in lines)
        if lines and lines[-1]["kind"] == "score":
            self._train(self.chunks[num_scored - 1], observer)
        for chunk in self.chunks[num_scored:]:
            self._score(chunk, observer)
            self._train(chunk, observer)
        return self.totals

    def _score(self, chunk: Chunk, observer: Observer) -> None:
        nll = self.replicas.score(chunk.windows)
        start, end = chunk.score_start, chunk.score_end
        nll_sum = sum_of(chunk, nll)
        observer.scored(chunk, nll)
        self.ledger.score(
            chunk=chunk.index,
            start=start,
            end=end,
            nll_sum=nll_sum,
            num_bytes=self.count_bytes(start, end),
        )
        self.totals.add(self.ledger.lines[-1])

    def _train(self, chunk: Chunk, observer: Observer) -> None:
        if self.ttt and chunk.index < len(self.chunks) - 1:
            lr, steps = self._adapt(chunk)
            self.ledger.train(
                chunk=chunk.index,
                start=chunk.start,
                end=chunk.start + chunk.num_rows * self.seq_len,
                lr=lr,
                steps=steps,
                weights=self.replicas.digest(),
            )
        observer.finished(chunk)

    def _adapt(self, chunk: Chunk) -> tuple[float, int]:
        assert self.ttt is not None
        lr = learning_rate(self.ttt, chunk.index, len(self.chunks))
        return lr, self.replicas.adapt(chunk.start, chunk.num_rows, lr)
