"""Whoever of a pipeline is killed, at whatever moment: no number changes, no chunk counts twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pipeline_lab import assert_same_numbers, wait_until

from golf.evaluate.pipelined import Task
from golf.records import EvalPaths, RunError, read_json, read_lines
from launcher.fanout.pipelined import PipelinedGroup


def killing(*kills: tuple[int, int]) -> type[PipelinedGroup]:
    """A group in which a rank is killed shortly after a chunk is given out, once each."""
    left = list(kills)

    class Killing(PipelinedGroup):
        def submit(self, task: Task) -> None:
            super().submit(task)
            for kill in [kill for kill in left if kill[0] == task.chunk]:
                left.remove(kill)
                pid = self._homes[kill[1]].pid
                os.kill(pid, signal.SIGSTOP)  # so that it cannot have finished
                threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()

    return Killing


@pytest.mark.parametrize(
    ("workers", "adapters", "kills"),
    [
        pytest.param(2, 1, [(0, 0)], id="the adapter, before anything is recorded"),
        pytest.param(3, 1, [(3, 2)], id="a scorer"),
        pytest.param(3, 2, [(4, 1)], id="one of two adapters"),
        pytest.param(2, 1, [(5, 1)], id="the scorer of the last chunk"),
    ],
)
def test_a_killed_worker_changes_no_number(
    fan_out, evaluated, tmp_path: Path, workers: int, adapters: int, kills
):
    out = tmp_path / "out"
    result = fan_out(out, workers, adapters=adapters, group_class=killing(*kills))
    assert len(result["recoveries"]) == len(kills)
    assert all("died" in recovery["cause"] for recovery in result["recoveries"])
    assert_same_numbers(out, evaluated(adapters))


def stopping(chunk: int, rank: int) -> type[PipelinedGroup]:
    """A group in which a rank stands still from a chunk on, and does not die."""
    left = [chunk]

    class Stopping(PipelinedGroup):
        def submit(self, task: Task) -> None:
            super().submit(task)
            if task.chunk in left:
                left.remove(task.chunk)
                os.kill(self._homes[rank].pid, signal.SIGSTOP)

    return Stopping


def test_a_scorer_that_stands_still_is_replaced(fan_out, evaluated, tmp_path: Path, monkeypatch):
    """While the other goes on: nobody runs far ahead of what is not scored."""
    monkeypatch.setattr("launcher.fanout.patience.FLOOR_S", 15.0)
    out = tmp_path / "out"
    result = fan_out(out, 3, adapters=1, group_class=stopping(2, 2))
    assert ["hung: nothing from" in each["cause"] for each in result["recoveries"]] == [True]
    assert_same_numbers(out, evaluated(1))


def test_too_many_losses_end_the_evaluation_and_a_resume_finishes_it(
    fan_out, evaluated, tmp_path: Path
):
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"lost 1 times.*worker 1 .*--resume"):
        fan_out(out, 2, adapters=1, group_class=killing((4, 1)), max_recoveries=0)
    assert read_lines(EvalPaths(out).ledger)
    fan_out(out, 3, adapters=1, resume=True)  # the number of scorers may change
    assert_same_numbers(out, evaluated(1))


def test_a_resume_may_not_change_the_number_of_adapters(fan_out, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match="lost 1 times"):
        fan_out(out, 2, adapters=1, group_class=killing((4, 1)), max_recoveries=0)
    with pytest.raises(ValueError, match="begun with other world_size"):
        fan_out(out, 3, adapters=2, resume=True)


def test_a_killed_coordinator_resumes_with_the_same_numbers(
    command, fan_out, evaluated, tmp_path: Path
):
    out = tmp_path / "out"
    schedule = ["--set", "ttt.schedule=pipelined", "--set", "fanout.adapters=1"]
    words = [sys.executable, "-m", "launcher.fanout", *command(out), *schedule, "--workers", "2"]
    guard = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: (read_json(EvalPaths(out).progress) or {}).get("chunk"), "a chunk")
        progress = read_json(EvalPaths(out).progress)
        os.kill(progress["coordinator"], signal.SIGKILL)
    finally:
        guard.send_signal(signal.SIGTERM)
        guard.wait()
    pids = [progress["coordinator"], *(worker["pid"] for worker in progress["workers"])]
    wait_until(lambda: not any(_lives(pid) for pid in pids), "the end of its Ray")
    assert not EvalPaths(out).result.exists()
    fan_out(out, 2, adapters=1, resume=True)
    assert_same_numbers(out, evaluated(1))


def _lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
