"""Which window scores which token, and which windows and rows belong to a chunk.

Scored position p is the prediction of token p+1 from the tokens up to p. Windows of `seq_len`
positions start on a grid of `stride`; the first scores all its positions, each later one those that
no earlier window has scored. So every position is scored exactly once, whatever the sizes, and
`sequential` evaluation is the grid whose stride is its window.

No torch here: `golf verify` recomputes this plan in no time.
"""

from __future__ import annotations

from dataclasses import dataclass

from golf.config import EvaluateConfig


@dataclass(frozen=True)
class Window:
    """Positions `start` to `end`, of which those from `first_scored` are scored."""

    start: int
    end: int
    first_scored: int

    @property
    def shape(self) -> tuple[int, int]:
        """Positions read and positions scored; windows of one shape make a batch."""
        return self.end - self.start, self.end - self.first_scored


@dataclass(frozen=True)
class WindowGrid:
    """All windows over `num_positions` scored positions."""

    num_positions: int
    seq_len: int
    stride: int

    def __post_init__(self) -> None:
        assert self.num_positions >= 1
        assert 1 <= self.stride <= self.seq_len

    @property
    def num_windows(self) -> int:
        return 1 + max(0, -(-(self.num_positions - self.seq_len) // self.stride))

    def window(self, k: int) -> Window:
        """The k-th window; the last one is shorter where the positions end."""
        start = k * self.stride
        end = min(start + self.seq_len, self.num_positions)
        return Window(start, end, self._first_scored(k))

    def scored_from(self, start: int, end: int) -> range:
        """Indices of the windows whose first scored position lies in [start, end)."""
        return range(self._first_window_at(start), self._first_window_at(end))

    def _first_scored(self, k: int) -> int:
        return 0 if k == 0 else (k - 1) * self.stride + self.seq_len

    def _first_window_at(self, position: int) -> int:
        """The first window that starts scoring at `position` or later."""
        if position <= 0:
            return 0
        k = 1 + max(0, -(-(position - self.seq_len) // self.stride))
        return min(k, self.num_windows)


@dataclass(frozen=True)
class Chunk:
    """Positions `start` to `end`: the windows that begin to score there, the rows to train on."""

    index: int
    start: int
    end: int
    windows: range
    score_start: int
    score_end: int
    """The windows score exactly [score_start, score_end); it may reach past `end` where the stride
    does not divide the chunk, never short of it."""
    num_rows: int
    """Whole rows of `seq_len` positions, from `start` on."""


def split_chunks(grid: WindowGrid, chunk_tokens: int) -> list[Chunk]:
    """Cut the scored positions into chunks; together they score each position exactly once."""
    chunks: list[Chunk] = []
    scored = 0
    for index, start in enumerate(range(0, grid.num_positions, chunk_tokens)):
        end = min(start + chunk_tokens, grid.num_positions)
        windows = grid.scored_from(start, end)
        score_end = grid.window(windows[-1]).end if windows else scored
        num_rows = (end - start) // grid.seq_len
        chunks.append(Chunk(index, start, end, windows, scored, score_end, num_rows))
        scored = score_end
    assert scored == grid.num_positions
    return chunks


def plan_windows(num_tokens: int, config: EvaluateConfig, protocol: str) -> WindowGrid:
    """The grid of `sequential`, `sliding` or `ttt` over a validation set of `num_tokens` tokens.

    Raises:
        ValueError: there is nothing to score.
    """
    num_positions = num_tokens - 1
    if config.tail == "cut":
        num_positions -= num_positions % config.eval_seq_len
    if num_positions < 1:
        raise ValueError(
            f"the validation set's {num_tokens} tokens hold nothing to score in windows of "
            f"evaluate.eval_seq_len={config.eval_seq_len} with tail={config.tail!r}"
        )
    stride = config.eval_seq_len if protocol == "sequential" else config.stride
    return WindowGrid(num_positions, config.eval_seq_len, stride)
