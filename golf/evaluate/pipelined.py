"""The pipelined schedule: some workers adapt and run ahead, others score with what they hand over.

1. Training on chunk c does not read the scores of chunk c. So those that adapt hand over the
   weights that have trained on the chunks before c, and train on c at once.
2. Whoever receives them scores chunk c with nothing else, and digests the weights itself.
3. The ledger takes each outcome as it comes; it refuses a score by other weights than these.

The scores are those of the strict schedule over as many workers as adapt here; the proof is by
provenance instead of by time (`golf.evaluate.provenance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from golf.config import TTTConfig
from golf.evaluate.group import Workers
from golf.evaluate.ledger import LegalityError
from golf.evaluate.provenance import ProvenanceLedger
from golf.evaluate.ttt import Nats, Observer, Totals, learning_rate, sum_of
from golf.evaluate.windows import Chunk

MAX_QUEUED = 2
"""Chunks given to those that adapt and not yet trained on: one at work, one to follow at once."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be done with one chunk; those that adapt take tasks in the order of the chunks."""

    chunk: int
    windows: range | None
    """To be scored with the weights as they are before the training; None: already scored."""
    train: tuple[int, int, float] | None
    """Start, rows and learning rate; None for the last chunk."""
    save: bool
    """Whether a checkpoint is due after the training."""
    needed: int
    """Chunks after which the evaluation would have to go on, were the group lost now."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Training on `chunk` left `weights` behind."""

    chunk: int
    steps: int
    weights: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A scorer holds `weights`, and has scored `chunk` with them."""

    chunk: int
    nll: Nats
    weights: str


@runtime_checkable
class Pipeline(Workers, Protocol):
    """Workers of which some adapt and others score."""

    @property
    def run_ahead(self) -> int:
        """Chunks that may be given out from the first unscored one on."""

    @property
    def num_scorers(self) -> int: ...

    def submit(self, task: Task) -> None:
        """Give out a task; it does not wait."""

    def collect(self) -> Trained | Scored:
        """The next outcome, waiting for it."""


class PipelinedEvaluation:
    """Runs the chunks of one `ttt` evaluation over a pipeline, and can take one up half-way."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        pipeline: Pipeline,
        ledger: ProvenanceLedger,
        count_bytes: Callable[[int, int], int],
        seq_len: int,
        ttt: TTTConfig,
    ) -> None:
        self.chunks, self.pipeline, self.ledger = chunks, pipeline, ledger
        self.count_bytes, self.seq_len, self.ttt = count_bytes, seq_len, ttt
        self.totals = Totals()
        self._trained = 0
        self._early: dict[int, Scored] = {}

    @property
    def num_done(self) -> int:
        """Chunks that are scored, whichever they are."""
        return len(self.ledger.scored)

    @property
    def restore_limit(self) -> int:
        """A checkpoint of more chunks could not score the first that is left."""
        return min(self.ledger.first_unscored, self.ledger.num_trained)

    def continue_from(self, lines: list[dict[str, Any]]) -> None:
        """Take over what an interrupted evaluation has recorded."""
        self.ledger.continue_from(lines)
        for line in lines:
            if line["kind"] == "score":
                self.totals.add(line)

    def catch_up(self, trained: int) -> None:
        """Go on with workers that have trained on the first `trained` chunks.

        What was trained on since is trained on again by `run`, which checks that it gives the
        weights that the ledger names.

        Raises:
            LegalityError: the checkpoint does not hold them.
        """
        self._check_lineage(trained, self.pipeline.digest())
        self._trained = trained

    def run(self, observer: Observer) -> Totals:
        """Score every chunk that is left and train on each but the last, again where need be."""
        self._early.clear()
        given = self._trained
        while self.num_done < len(self.chunks):
            while given < len(self.chunks) and self._may_give(given):
                self.pipeline.submit(self._task(given))
                given += 1
            outcome = self.pipeline.collect()
            if isinstance(outcome, Trained):
                self._take_training(outcome)
            else:
                self._early[outcome.chunk] = outcome
            for chunk in [c for c in self._early if c <= self.ledger.num_trained]:
                self._take_scores(self._early.pop(chunk), observer)
        return self._totals_in_order()

    def _may_give(self, chunk: int) -> bool:
        ahead = chunk - self.ledger.first_unscored
        return chunk - self._trained < MAX_QUEUED and ahead < self.pipeline.run_ahead

    def _task(self, index: int) -> Task:
        chunk, done = self.chunks[index], index + 1
        trains = done < len(self.chunks)
        return Task(
            chunk=index,
            windows=None if index in self.ledger.scored else chunk.windows,
            train=(chunk.start, chunk.num_rows, self._lr(index)) if trains else None,
            save=trains and done % self.ttt.checkpoint_chunks == 0,
            needed=self.ledger.first_unscored,
        )

    def _lr(self, index: int) -> float:
        return learning_rate(self.ttt, index, len(self.chunks))

    def _take_training(self, trained: Trained) -> None:
        assert trained.chunk == self._trained
        self._trained += 1
        if trained.chunk < self.ledger.num_trained:
            self._check_lineage(self._trained, trained.weights)
            return
        chunk = self.chunks[trained.chunk]
        self.ledger.train(
            chunk=chunk.index,
            start=chunk.start,
            end=chunk.start + chunk.num_rows * self.seq_len,
            lr=self._lr(chunk.index),
            steps=trained.steps,
            weights=trained.weights,
        )

    def _check_lineage(self, trained: int, weights: str) -> None:
        if weights != self.ledger.lineage[trained]:
            raise LegalityError(
                f"repeating the training on {trained} chunks gives other weights than before; "
                "resume on the same kind of machine and number of adapters, or start over in a "
                "new folder"
            )

    def _take_scores(self, scored: Scored, observer: Observer) -> None:
        chunk = self.chunks[scored.chunk]
        nll_sum = sum_of(chunk, scored.nll)
        observer.scored(chunk, scored.nll)
        self.ledger.score_by(
            chunk=chunk,
            nll_sum=nll_sum,
            num_bytes=self.count_bytes(chunk.score_start, chunk.score_end),
            weights=scored.weights,
        )
        self.totals.add(self.ledger.lines[-1])
        observer.finished(chunk)

    def _totals_in_order(self) -> Totals:
        """Summed in the order of the chunks, so that no bit depends on who was done first."""
        lines = [line for line in self.ledger.lines if line["kind"] == "score"]
        self.totals = Totals()
        for line in sorted(lines, key=lambda line: int(line["chunk"])):
            self.totals.add(line)
        return self.totals
