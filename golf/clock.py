"""The clock of the training budget: it counts training steps and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class TrainingClock:
    """Milliseconds of training so far; stands still while paused."""

    def __init__(self, device: torch.device, elapsed_ms: float = 0.0) -> None:
        self._device = device
        self._before_ms = elapsed_ms
        self._started: float | None = self._now()

    @property
    def elapsed_ms(self) -> float:
        if self._started is None:
            return self._before_ms
        return self._before_ms + (time.perf_counter() - self._started) * 1000

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Validation and checkpoints do not count; the device's queued work before them does."""
        self._synchronize()
        self._before_ms, self._started = self.elapsed_ms, None
        try:
            yield
        finally:
            self._started = self._now()

    def _now(self) -> float:
        self._synchronize()
        return time.perf_counter()

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
