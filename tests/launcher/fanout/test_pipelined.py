"""Workers of which some adapt and some score give the numbers of the strict schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize(("adapters", "workers"), [(1, 2), (1, 3), (2, 3), (2, 4)])
def test_scores_are_those_of_as_many_strict_workers_as_adapt(
    fan_out, evaluated, tmp_path: Path, adapters: int, workers: int
):
    result = fan_out(tmp_path / "out", workers, adapters=adapters)
    assert (result["schedule"], result["world_size"]) == ("pipelined", adapters)
    assert result["num_scorers"] == workers - adapters
    assert_same_numbers(tmp_path / "out", evaluated(adapters))
