from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from golf.metrics import DivergedError, Metrics
from golf.records import read_lines


def loss(value: float) -> Tensor:
    return torch.tensor(value)


def line(step: int) -> dict[str, float]:
    return {"step": step, "lr_scale": 1.0}


def test_every_added_step_becomes_a_line_with_its_loss(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    for step in (1, 2, 3):
        metrics.add(line(step), loss(step / 4))
    metrics.close()
    assert read_lines(tmp_path / "metrics.jsonl") == [
        {"step": step, "train_loss": step / 4, "lr_scale": 1.0} for step in (1, 2, 3)
    ]
    assert metrics.last == {"step": 3, "train_loss": 0.75, "lr_scale": 1.0}


def test_a_pending_loss_is_not_read_before_a_line_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process's clock is stood in for: half a second later the next step writes all."""
    seconds = [0.0]
    monkeypatch.setattr("golf.metrics.time.perf_counter", lambda: seconds[0])
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.add(line(1), loss(2.0))
    assert read_lines(tmp_path / "metrics.jsonl") == []
    seconds[0] = 0.6
    metrics.add(line(2), loss(1.0))
    assert [entry["step"] for entry in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    metrics.close()


def test_a_resumed_run_goes_on_after_the_steps_of_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path, 0)
    for step in (1, 2, 3):
        first.add(line(step), loss(1.0))
    first.close()
    second = Metrics(path, num_lines=2)
    assert second.last == {"step": 2, "train_loss": 1.0, "lr_scale": 1.0}
    second.add(line(3), loss(9.0))
    second.close()
    assert [(e["step"], e["train_loss"]) for e in read_lines(path)] == [(1, 1), (2, 1), (3, 9)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_names_step_and_settings(
    value: float, tmp_path: Path
) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.add(line(1), loss(3.0))
    metrics.add(line(2), loss(value))
    metrics.add(line(3), loss(3.0))
    with pytest.raises(DivergedError, match=rf"train_loss is {value} at step 2: .*matrix_lr"):
        metrics.flush()
    metrics.release()
    assert [entry["step"] for entry in read_lines(tmp_path / "metrics.jsonl")] == [1]


def test_ranks_without_a_file_notice_divergence_too() -> None:
    metrics = Metrics(None, 0)
    metrics.add(line(1), loss(2.0))
    metrics.flush()
    assert metrics.last["train_loss"] == 2.0
    metrics.add(line(2), loss(float("nan")))
    with pytest.raises(DivergedError, match="step 2"):
        metrics.close()
