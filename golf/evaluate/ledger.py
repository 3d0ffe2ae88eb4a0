"""The ledger: two lines a chunk that prove the order of scoring and training.

1. A `score` line is on disk before its chunk is trained on; a `train` line follows.
2. Each line names the weights by digest: those that scored, and those that training left behind.
3. Each line carries the SHA-256 of the line before, the first that of the evaluation's plan, and
   the result that of the last, so that no line can be changed, dropped, added or swapped unnoticed.

The ledger refuses to record what would not be legal (parameter-golf issue 1017): training on a
position that has not been scored, scoring one twice or leaving one out, scoring with other weights
than the last training left behind.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from golf.records import JsonLines, RunError


class LegalityError(RunError):
    """A step that score-first evaluation forbids."""


def line_hash(line: bytes) -> str:
    """What the next line carries as `previous`."""
    return hashlib.sha256(line).hexdigest()


def encode_line(line: dict[str, Any]) -> bytes:
    """The one form in which a line is written and hashed."""
    return json.dumps(line, allow_nan=False).encode()


class Ledger:
    """The growing ledger of one evaluation. Without a path it only keeps the rules."""

    def __init__(self, path: Path | None, plan_hash: str, weights: str) -> None:
        self.path, self.head, self.weights = path, plan_hash, weights
        self.lines: list[dict[str, Any]] = []
        self.scored_end = 0
        self._file: JsonLines | None = None

    def continue_from(self, lines: list[dict[str, Any]]) -> None:
        """Take over the complete lines of an interrupted evaluation, checking each as if new."""
        for line in lines:
            if line.get("previous") != self.head:
                raise LegalityError(f"{self.path}: line {len(self.lines) + 1} does not follow")
            self._admit(line)

    def score(self, *, chunk: int, start: int, end: int, nll_sum: float, num_bytes: int) -> None:
        """Record that positions [start, end) were scored with the current weights."""
        self._append(
            {
                "kind": "score",
                "chunk": chunk,
                "start": start,
                "end": end,
                "nll_sum": nll_sum,
                "tokens": end - start,
                "bytes": num_bytes,
                "weights": self.weights,
            }
        )

    def train(
        self, *, chunk: int, start: int, end: int, lr: float, steps: int, weights: str
    ) -> None:
        """Record that training on positions [start, end) left these weights behind."""
        self._append(
            {
                "kind": "train",
                "chunk": chunk,
                "start": start,
                "end": end,
                "lr": lr,
                "steps": steps,
                "weights": weights,
            }
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        line = {**line, "previous": self.head}
        known = len(self.lines)
        self._admit(line)
        if self.path is not None:
            self._file = self._file or JsonLines(self.path, keep=known)
            self._file.append_bytes(encode_line(line), sync=True)

    def _admit(self, line: dict[str, Any]) -> None:
        check = self._check_score if line["kind"] == "score" else self._check_train
        check(line)
        self.lines.append(line)
        self.head = line_hash(encode_line(line))

    def _check_score(self, line: dict[str, Any]) -> None:
        if line["start"] != self.scored_end or line["end"] < line["start"]:
            raise LegalityError(
                f"chunk {line['chunk']} scores from position {line['start']}, but "
                f"{self.scored_end} is the first unscored one: each is scored once, in order"
            )
        if line["weights"] != self.weights:
            raise LegalityError(f"chunk {line['chunk']} is scored with weights of unknown origin")
        self.scored_end = line["end"]

    def _check_train(self, line: dict[str, Any]) -> None:
        if line["end"] > self.scored_end:
            raise LegalityError(
                f"training on chunk {line['chunk']} up to position {line['end']} before it is "
                f"scored (so far: {self.scored_end}) is adapting to the answers; score first"
            )
        self.weights = line["weights"]
