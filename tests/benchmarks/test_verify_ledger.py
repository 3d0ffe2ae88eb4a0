"""The made-up evaluations that `golf verify` is timed on are sound, and as large as FineWeb's."""

from __future__ import annotations

from pathlib import Path

import pytest
import verify_ledger

from golf.evaluate.verify import verify


@pytest.mark.parametrize("schedule", ["strict", "pipelined"])
def test_a_made_up_evaluation_of_1893_chunks_verifies(schedule, tmp_path: Path):
    assert verify_ledger.make_evaluation(tmp_path, schedule) == 1893
    assert {verdict.name: verdict.problem for verdict in verify(tmp_path)} == dict.fromkeys(
        ("files", "chain", "order", "coverage", "lineage", "training", "totals")
    )
