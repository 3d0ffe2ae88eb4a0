"""`progress.json`: where an evaluation stands, for watchers and for the one that resumes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from golf.evaluate.group import Workers
from golf.evaluate.ttt import Totals
from golf.evaluate.windows import Chunk
from golf.records import EvalPaths, read_json, write_json

PROGRESS_EVERY_S = 0.5


class Progress:
    """Writes the file now and then; keeps the clock and the recoveries over interruptions."""

    def __init__(
        self,
        paths: EvalPaths,
        protocol: str,
        chunks: list[Chunk],
        group: Workers,
        tell: Callable[[str], None],
    ) -> None:
        self.path, self.protocol, self.chunks = paths.progress, protocol, chunks
        self.group, self.tell = group, tell
        self.num_windows = sum(len(chunk.windows) for chunk in chunks)
        self.num_tokens = chunks[-1].score_end
        self.recoveries: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self.started = self.told = time.perf_counter()

    def continue_from_file(self) -> None:
        """Take over what the interrupted evaluation last wrote."""
        before = read_json(self.path) or {}
        self.seconds_before = float(before.get("elapsed_s", 0.0))
        self.recoveries = list(before.get("recoveries", ()))

    def start(self) -> None:
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def due(self) -> bool:
        return time.perf_counter() - self.told > PROGRESS_EVERY_S

    def write(self, done: int, totals: Totals) -> None:
        """Say that `done` chunks are finished."""
        self.told = time.perf_counter()
        fields = {
            "protocol": self.protocol,
            "chunk": done,
            "num_chunks": len(self.chunks),
            "tokens": totals.tokens,
            "num_tokens": self.num_tokens,
            "windows": sum(len(chunk.windows) for chunk in self.chunks[:done]),
            "num_windows": self.num_windows,
            "val_loss": totals.val_loss,
            "val_bpb": totals.val_bpb,
            "elapsed_s": self.seconds,
            "recoveries": self.recoveries,
            **self.group.status(),
        }
        write_json(self.path, fields)
        recovered = f"  {len(self.recoveries)} recovered" if self.recoveries else ""
        self.tell(
            f"{self.protocol} chunk {done}/{len(self.chunks)}  val_loss {totals.val_loss:.4f}  "
            f"val_bpb {totals.val_bpb:.4f}  {self.seconds:.0f} s{recovered}"
        )
