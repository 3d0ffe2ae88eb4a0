"""A model that scores windows: this process's share of them, as one of the ranks.

`score` reads its share of the windows in batches of one shape, under `inference_mode`, and adds the
ranks' shares up: each position is non-zero on one rank only, so the sum is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from golf.data.shards import Tokens
from golf.distributed import Ranks
from golf.evaluate.ttt import Nats
from golf.evaluate.windows import Window, WindowGrid
from golf.model.attention import rope_tables
from golf.model.gpt import GPT
from golf.model.precision import autocast


def share(items: range, rank: int, world_size: int) -> range:
    """The contiguous part of `items` that falls to `rank`; sizes differ by at most one."""
    size, extra = divmod(len(items), world_size)
    first = rank * size + min(rank, extra)
    return items[first : first + size + (rank < extra)]


class Scorer:
    """One rank's copy of the model, with the tokens that it scores."""

    def __init__(
        self,
        model: GPT,
        tokens: Tokens,
        grid: WindowGrid,
        ranks: Ranks,
        batch_windows: int,
        compiled: bool = False,
    ) -> None:
        self.grid, self.ranks, self.batch_windows = grid, ranks, batch_windows
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(ranks.device)
        self.rope = rope_tables(model.config, grid.seq_len, ranks.device)
        self.dtype = model.tok_emb.weight.dtype
        self.model: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]

    @torch.inference_mode()
    def score(self, windows: range) -> Nats:
        """Nats of each position that these windows score, in order: float32 [positions]."""
        if not windows:
            return np.zeros(0, np.float32)
        nll = self._score_shares(windows, [self.ranks.rank], self.ranks.world_size)
        self.ranks.sum(nll)
        return nll.cpu().numpy()

    @torch.inference_mode()
    def score_alone(self, windows: range, num_shares: int) -> Nats:
        """What `num_shares` ranks would score, scored here: in their batches, so to their bits."""
        if not windows:
            return np.zeros(0, np.float32)
        return self._score_shares(windows, range(num_shares), num_shares).cpu().numpy()

    def _score_shares(self, windows: range, shares: Iterable[int], num_shares: int) -> Tensor:
        """Nats of all positions, 0 where another share scores them: float32 [positions]."""
        first = self.grid.window(windows[0]).first_scored
        end = self.grid.window(windows[-1]).end
        nll = torch.zeros(end - first, device=self.ranks.device)
        for number in shares:
            for batch in self._batches(share(windows, number, num_shares)):
                length, scored = batch[0].shape
                rows = self.rows([w.start for w in batch], length)
                out = self.nll(rows[:, :-1], rows[:, length + 1 - scored :])
                # Consecutive windows score consecutive positions.
                nll[batch[0].first_scored - first : batch[-1].end - first] = out.flatten()
        return nll

    def nll(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The model's loss per target, float32 [B, S]."""
        with autocast(self.ranks.device, self.dtype):
            out: Tensor = self.model(ids, targets, self.rope)
        return out

    def rows(self, starts: list[int], length: int) -> Tensor:
        """Tokens [len(starts), length + 1] from each start: inputs and, one further, targets."""
        index = torch.tensor(starts)[:, None] + torch.arange(length + 1)
        return self.tokens[index.to(self.ranks.device, non_blocking=True)].long()

    def _batches(self, windows: range) -> Iterator[list[Window]]:
        size = self.batch_windows
        for _, group in groupby((self.grid.window(k) for k in windows), key=lambda w: w.shape):
            same = list(group)
            yield from (same[i : i + size] for i in range(0, len(same), size))
