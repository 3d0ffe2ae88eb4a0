"""`metrics.jsonl`: one line a step, without making the device wait for each.

Losses stay on the device until a line is due; reading them then is also where a loss that is no
number is noticed.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from golf.records import JsonLines, RunError, read_lines

FLUSH_EVERY_S = 0.5


class DivergedError(RunError):
    """The loss is no number; repeating the run would give the same."""


class Metrics:
    """Collects the lines of a run's steps; only the main rank (`path` given) writes them."""

    def __init__(self, path: Path | None, num_lines: int) -> None:
        self._file = JsonLines(path, keep=num_lines) if path else None
        self._pending: list[tuple[dict[str, Any], Tensor]] = []
        self._flushed = time.perf_counter()
        kept = read_lines(path)[:num_lines] if path else []
        self.last: dict[str, Any] = kept[-1] if kept else {}

    def add(self, line: dict[str, Any], train_loss: Tensor) -> None:
        """Record a step; `train_loss` is 0-dimensional and may still be under computation."""
        self._pending.append((line, train_loss))
        if time.perf_counter() - self._flushed > FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write all pending lines.

        Raises:
            DivergedError: a loss is infinite or no number.
        """
        for line, loss_tensor in self._pending:
            loss = float(loss_tensor)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"train_loss is {loss} at step {line['step']}: training diverged; lower "
                    "optim.matrix_lr, optim.scalar_lr or optim.tied_embed_lr"
                )
            self.last = {"step": line["step"], "train_loss": loss, **line}
            if self._file:
                self._file.append(self.last)
        self._pending.clear()
        self._flushed = time.perf_counter()

    def close(self) -> None:
        """Write all pending lines and close the file."""
        self.flush()
        self.release()

    def release(self) -> None:
        """Close the file as it is: what a run that fails still does."""
        if self._file:
            self._file.close()
