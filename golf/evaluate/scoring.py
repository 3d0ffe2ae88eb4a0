"""A model that scores windows and adapts to rows: this process's share of them, as one of the ranks.

1. `score` reads its share of the windows in batches of one shape, under `inference_mode`, and adds
   the ranks' shares up: each position is non-zero on one rank only, so the sum is exact.
2. `adapt` takes SGD steps on its share of the rows; gradients are averaged over the rows of a batch,
   whatever the number of ranks that hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from golf.config import Job
from golf.distributed import Ranks
from golf.evaluate.windows import Window, WindowGrid
from golf.model.attention import rope_tables
from golf.model.flat import FlatParameters
from golf.model.gpt import GPT
from golf.model.precision import autocast


def share(items: range, rank: int, world_size: int) -> range:
    """The contiguous part of `items` that falls to `rank`; sizes differ by at most one."""
    size, extra = divmod(len(items), world_size)
    first = rank * size + min(rank, extra)
    return items[first : first + size + (rank < extra)]


class Replica:
    """One rank's copy of the model, with its tokens and its optimizer."""

    def __init__(
        self,
        model: GPT,
        tokens: np.ndarray[tuple[int], np.dtype[np.uint16]],
        job: Job,
        grid: WindowGrid,
        ranks: Ranks,
        compile_model: bool = False,
    ) -> None:
        self.job, self.grid, self.ranks = job, grid, ranks
        frozen = tuple(f"blocks.{i}." for i in range(job.ttt.freeze_blocks))
        self.flat = FlatParameters(model, frozen=lambda name: name.startswith(frozen))
        self.momenta = [torch.zeros_like(v) for v in self.flat.values]
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(ranks.device)
        self.rope = rope_tables(model.config, grid.seq_len, ranks.device)
        self.dtype = model.tok_emb.weight.dtype
        self.model: nn.Module = torch.compile(model) if compile_model else model  # type: ignore[assignment]

    @torch.inference_mode()
    def score(self, windows: range) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Nats of each position that these windows score, in order: float32 [positions]."""
        if not windows:
            return np.zeros(0, np.float32)
        first = self.grid.window(windows[0]).first_scored
        end = self.grid.window(windows[-1]).end
        nll = torch.zeros(end - first, device=self.ranks.device)
        mine = share(windows, self.ranks.rank, self.ranks.world_size)
        for batch in self._batches(mine):
            length, scored = batch[0].shape
            rows = self._rows([w.start for w in batch], length)
            with autocast(self.ranks.device, self.dtype):
                out = self.model(rows[:, :-1], rows[:, length + 1 - scored :], self.rope)
            # Consecutive windows score consecutive positions.
            nll[batch[0].first_scored - first : batch[-1].end - first] = out.flatten()
        self.ranks.sum(nll)
        return nll.cpu().numpy()

    def adapt(self, start: int, num_rows: int, lr: float) -> int:
        """Train on `num_rows` rows from position `start`, all epochs; returns the steps taken."""
        config, steps = self.job.ttt, 0
        for _ in range(config.epochs):
            for first in range(0, num_rows, config.batch_seqs):
                rows = range(first, min(first + config.batch_seqs, num_rows))
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

    def _batches(self, windows: range) -> Iterator[list[Window]]:
        size = self.job.evaluate.batch_windows
        for _, group in groupby((self.grid.window(k) for k in windows), key=lambda w: w.shape):
            same = list(group)
            yield from (same[i : i + size] for i in range(0, len(same), size))

    def _rows(self, starts: list[int], length: int) -> Tensor:
        """Tokens [len(starts), length + 1] from each start: inputs and, one further, targets."""
        index = torch.tensor(starts)[:, None] + torch.arange(length + 1)
        return self.tokens[index.to(self.ranks.device, non_blocking=True)].long()

    def _sgd_step(self, start: int, rows: range, lr: float) -> None:
        seq_len, config = self.grid.seq_len, self.job.ttt
        mine = share(rows, self.ranks.rank, self.ranks.world_size)
        self.flat.zero_gradients()
        if mine:
            batch = self._rows([start + row * seq_len for row in mine], seq_len)
            with autocast(self.ranks.device, self.dtype):
                nll = self.model(batch[:, :-1], batch[:, 1:], self.rope)
            (nll.mean() * (len(mine) / len(rows))).backward()
        self.ranks.sum(*self.flat.gradients)  # also without rows: the others wait for it
        self.flat.clip_gradients(config.grad_clip)
        with torch.no_grad():
            for value, momentum, gradient in zip(
                self.flat.values, self.momenta, self.flat.gradients, strict=True
            ):
                momentum.mul_(config.momentum).add_(gradient)
                value.add_(momentum, alpha=-lr)
