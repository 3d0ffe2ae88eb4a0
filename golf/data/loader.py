"""Training batches, a pure function of the step.

1. `TokenStream` strings the training shards together in sorted order, the first after the last.
2. A step takes `NUM_SPANS` consecutive spans of `train_batch_tokens / NUM_SPANS + 1` tokens. Spans
   share no token, and the next step goes on where the last one ended.
3. `StepLoader` gives rank r of W the spans r, r+W, r+2W, ...: all ranks together read the same
   batch whatever W is. Nothing is remembered between steps, so resuming needs the step alone.

The order of the tokens is that of the challenge's own loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from golf.config import NUM_SPANS, ConfigError
from golf.data.shards import Tokens, check_vocabulary, find_shards, open_shard
from golf.records import DataPaths

Rows = npt.NDArray[np.int64]


class TokenStream:
    """An endless stream of tokens over shards that are read in turn."""

    def __init__(self, shards: Sequence[Path]) -> None:
        """Map every shard.

        Raises:
            ShardError: a shard is missing or damaged.
        """
        assert shards
        self._shards = [open_shard(path) for path in shards]
        self._ends = np.cumsum([len(shard) for shard in self._shards])

    @property
    def num_tokens(self) -> int:
        """Tokens before the stream starts over."""
        return int(self._ends[-1])

    def read(self, start: int, count: int) -> Tokens:
        """`count` tokens from position `start` on, uint16 `[count]`, a copy of one's own."""
        assert min(start, count) >= 0, (start, count)
        out = np.empty(count, dtype=np.uint16)
        position, filled = start % self.num_tokens, 0
        while filled < count:
            index = int(np.searchsorted(self._ends, position, side="right"))
            shard = self._shards[index]
            offset = position - (int(self._ends[index]) - len(shard))
            taken = min(len(shard) - offset, count - filled)
            out[filled : filled + taken] = shard[offset : offset + taken]
            filled += taken
            position = (position + taken) % self.num_tokens
        return out


class StepLoader:
    """The micro-batches of one rank."""

    def __init__(
        self,
        paths: DataPaths,
        train_batch_tokens: int,
        seq_len: int,
        rank: int = 0,
        world_size: int = 1,
        vocab_size: int | None = None,
    ) -> None:
        """Open the training shards of `paths`.

        Args:
            train_batch_tokens: targets of one step over all ranks.
            vocab_size: where given, every token that is read must lie below it.

        Raises:
            ConfigError: the ranks or rows do not divide a step evenly.
            ShardError: there are no training shards, or one is damaged.
        """
        if world_size < 1 or NUM_SPANS % world_size != 0:
            raise ConfigError(
                f"{world_size} ranks cannot share the {NUM_SPANS} spans of a step evenly; "
                f"run {', '.join(str(n) for n in range(1, NUM_SPANS) if NUM_SPANS % n == 0)} or "
                f"{NUM_SPANS} ranks"
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} must lie in [0, {world_size})")
        if train_batch_tokens < 1 or train_batch_tokens % (NUM_SPANS * seq_len) != 0:
            raise ConfigError(
                f"data.train_batch_tokens={train_batch_tokens} must be a multiple of {NUM_SPANS} x "
                f"data.train_seq_len={seq_len}, so that every span is cut in whole rows"
            )
        self._root = paths.root
        self._stream = TokenStream(find_shards(paths, "train"))
        self._span_tokens = train_batch_tokens // NUM_SPANS + 1
        self._seq_len = seq_len
        self._spans = range(rank, NUM_SPANS, world_size)
        self._vocab_size = vocab_size

    @property
    def num_tokens(self) -> int:
        """Tokens of the training split."""
        return self._stream.num_tokens

    def micro_batches(self, step: int) -> list[tuple[Rows, Rows]]:
        """Inputs and targets of this rank's spans in `step` (from 0), each int64 `[rows, seq_len]`.

        Raises:
            ShardError: a token lies outside the vocabulary.
        """
        assert step >= 0, step
        return [self._span(step * NUM_SPANS + index) for index in self._spans]

    def _span(self, index: int) -> tuple[Rows, Rows]:
        tokens = self._stream.read(index * self._span_tokens, self._span_tokens)
        if self._vocab_size is not None:
            check_vocabulary(tokens, self._vocab_size, self._root)
        span = tokens.astype(np.int64)
        return span[:-1].reshape(-1, self._seq_len), span[1:].reshape(-1, self._seq_len)
