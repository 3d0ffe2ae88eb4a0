"""What must be equal between evaluations whose ledger lines come in different orders."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from golf.evaluate.verify import verify
from golf.records import EvalPaths, read_json, read_lines


def by_chunk(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What the ledger says of each chunk, whatever the order of its lines."""
    of_schedule = ("previous", "trained_chunks")
    return {
        (line["kind"], line["chunk"]): {k: v for k, v in line.items() if k not in of_schedule}
        for line in read_lines(EvalPaths(folder).ledger)
    }


def assert_same_numbers(out: Path, wanted: Path, *also: str) -> None:
    """Every score, sum and digest to the last bit; not the order of the lines, nor their hashes."""
    assert by_chunk(out) == by_chunk(wanted)
    assert (out / "nll.npy").read_bytes() == (wanted / "nll.npy").read_bytes()
    results = [read_json(EvalPaths(folder).result) for folder in (out, wanted)]
    for own in ("seconds", "recoveries", "ledger_head", "schedule", "num_scorers"):
        for result in results:
            result.pop(own, None)
    assert results[0] == results[1]
    assert all(verdict.ok for verdict in verify(out))


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 180) -> None:
    """Wait for real processes, of which a busy machine may need a while to start a dozen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.05)
