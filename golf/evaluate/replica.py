"""A replica: a model that scores and, by plain SGD on rows already scored, adapts.

Gradients are averaged over the rows of a batch, whatever the number of ranks that hold them, so
that all ranks take the same step and the result does not depend on their number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from golf.config import Job
from golf.data.shards import Tokens
from golf.distributed import Ranks
from golf.evaluate.scoring import Scorer, share
from golf.evaluate.windows import WindowGrid
from golf.model.flat import FlatParameters
from golf.model.gpt import GPT


class Replica(Scorer):
    """One rank's copy of the model, with the optimizer that adapts it."""

    def __init__(
        self,
        model: GPT,
        tokens: Tokens,
        grid: WindowGrid,
        ranks: Ranks,
        job: Job,
        compiled: bool = False,
    ) -> None:
        self.ttt = job.ttt
        frozen = tuple(f"blocks.{i}." for i in range(job.ttt.freeze_blocks))
        # Parameters move into flat buffers before anything compiled refers to them.
        self.flat = FlatParameters(model, frozen=lambda name: name.startswith(frozen))
        self.momenta = [torch.zeros_like(v) for v in self.flat.values]
        super().__init__(model, tokens, grid, ranks, job.evaluate.batch_windows, compiled)

    def adapt(self, start: int, num_rows: int, lr: float) -> int:
        """Train on `num_rows` rows from position `start`, all epochs; returns the steps taken."""
        steps = 0
        for _ in range(self.ttt.epochs):
            for first in range(0, num_rows, self.ttt.batch_seqs):
                rows = range(first, min(first + self.ttt.batch_seqs, num_rows))
                self._sgd_step(start, rows, lr)
                steps += 1
        return steps

    def digest(self) -> str:
        """Digest of the weights as they are now."""
        return self.flat.digest()

    def state(self) -> dict[str, Tensor]:
        """Weights and momentum, for a checkpoint."""
        weights, momenta = (self.flat.unflatten(t) for t in (self.flat.values, self.momenta))
        return {f"weights.{n}": t for n, t in weights.items()} | {
            f"momentum.{n}": t for n, t in momenta.items()
        }

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])

    def _sgd_step(self, start: int, rows: range, lr: float) -> None:
        seq_len = self.grid.seq_len
        mine = share(rows, self.ranks.rank, self.ranks.world_size)
        self.flat.zero_gradients()
        if mine:
            batch = self.rows([start + row * seq_len for row in mine], seq_len)
            nll = self.nll(batch[:, :-1], batch[:, 1:])
            (nll.mean() * (len(mine) / len(rows))).backward()
        self.ranks.sum(*self.flat.gradients)  # also without rows: the others wait for it
        self.flat.clip_gradients(self.ttt.grad_clip)
        with torch.no_grad():
            for value, momentum, gradient in zip(
                self.flat.values, self.momenta, self.flat.gradients, strict=True
            ):
                momentum.mul_(self.ttt.momentum).add_(gradient)
                value.add_(momentum, alpha=-lr)
