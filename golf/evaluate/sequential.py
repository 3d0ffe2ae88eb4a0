"""Sequential validation in the middle or at the end of training: nothing is written or resumed."""

from __future__ import annotations

from golf.config import Job
from golf.distributed import Ranks
from golf.evaluate.scoring import Scorer
from golf.evaluate.ttt import Totals
from golf.evaluate.validation import ValidationSet
from golf.evaluate.windows import plan_windows, split_chunks
from golf.model.gpt import GPT


def score_sequential(
    model: GPT, validation: ValidationSet, job: Job, ranks: Ranks, compiled: bool
) -> Totals:
    """Sums over the whole validation set, in windows that do not overlap.

    The sums are those of `golf eval --protocol sequential` with the same weights.
    """
    grid = plan_windows(len(validation.tokens), job.evaluate, "sequential")
    scorer = Scorer(model, validation.tokens, grid, ranks, job.evaluate.batch_windows, compiled)
    totals = Totals()
    for chunk in split_chunks(grid, job.ttt.chunk_tokens):
        nll = scorer.score(chunk.windows)
        totals.add(
            {
                "nll_sum": float(nll.sum(dtype="float64")),
                "tokens": len(nll),
                "bytes": validation.count_bytes(chunk.score_start, chunk.score_end),
            }
        )
    return totals
