"""Whoever is killed, at whatever moment: the numbers are those of an undisturbed evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from golf.evaluate.verify import verify
from golf.records import EvalPaths, RunError, read_json
from golf.weights import WeightsError
from launcher.fanout import group, patience
from launcher.fanout.group import NodesLostError, RayGroup
from launcher.fanout.rank import RankSpec


def killing(*kills: tuple[str, int, int]) -> type[RayGroup]:
    """A group in which, in the n-th call of a method, a rank is killed while it is at it."""
    left = list(kills)

    class Killing(RayGroup):
        seen: dict[str, int] = {}  # noqa: RUF012 one group of it lives

        def _call(self, method: str, *arguments: Any) -> list[Any]:
            number = self.seen[method] = self.seen.get(method, -1) + 1
            for kill in left:
                if kill[:2] == (method, number):
                    left.remove(kill)
                    self._kill_within(self._homes[kill[2]].pid)
                    break
            return super()._call(method, *arguments)

        def _kill_within(self, pid: int) -> None:
            os.kill(pid, signal.SIGSTOP)  # so that the call cannot have ended
            threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()

    return Killing


def stopping(*stops: tuple[str, int, int]) -> type[RayGroup]:
    """A group in which a rank stands still from the n-th call of a method on, and does not die."""

    class Stopping(killing(*stops)):  # type: ignore[misc]
        def _kill_within(self, pid: int) -> None:
            os.kill(pid, signal.SIGSTOP)

    return Stopping


def assert_same_numbers(out: Path, undisturbed: Path) -> None:
    for name in ("plan.json", "ledger.jsonl", "nll.npy"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    result, wanted = (read_json(EvalPaths(folder).result) for folder in (out, undisturbed))
    for own in ("seconds", "recoveries"):
        del result[own], wanted[own]
    assert result == wanted
    assert all(verdict.ok for verdict in verify(out))


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([("score", 0, 1)], id="before anything is recorded"),
        pytest.param([("adapt", 1, 0)], id="rank 0 while training, before a checkpoint"),
        pytest.param([("save", 0, 0)], id="rank 0 while it writes a checkpoint"),
        pytest.param(
            [("digest", 5, 1), ("restore", 0, 0)],
            id="after training, and again while the new group is restored",
        ),
    ],
)
def test_a_killed_worker_changes_no_number(fan_out, evaluated, tmp_path: Path, kills):
    result = fan_out(tmp_path / "out", group_class=killing(*kills))
    assert len(result["recoveries"]) == len(kills)
    assert all("died" in recovery["cause"] for recovery in result["recoveries"])
    assert_same_numbers(tmp_path / "out", evaluated(2))


def test_a_node_that_does_not_come_back_is_the_scheduler_s_to_replace(
    fan_out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(group, "PLACE_TIMEOUT_S", 0.5)

    class OverTwoNodes(RayGroup):
        def __init__(self, spec: RankSpec, *settings: Any, **more: Any) -> None:
            super().__init__(replace(spec, num_nodes=2), *settings, **more)

    with pytest.raises(NodesLostError, match=r"lost node 1, which did not come back within 0 s"):
        fan_out(tmp_path / "out", group_class=OverTwoNodes)


def test_too_many_losses_end_the_evaluation_and_a_resume_finishes_it(
    fan_out, evaluated, tmp_path: Path
):
    with pytest.raises(RunError, match=r"lost 1 times.*worker 1 .*--resume"):
        fan_out(tmp_path / "out", group_class=killing(("adapt", 3, 1)), max_recoveries=0)
    result = fan_out(tmp_path / "out", resume=True)
    assert len(result["recoveries"]) == 1, "what was survived is kept over a resume"
    assert_same_numbers(tmp_path / "out", evaluated(2))


def test_what_no_new_group_would_mend_is_not_tried_again(fan_out, tmp_path: Path):
    with pytest.raises(RunError, match="lost 1 times"):
        fan_out(tmp_path / "out", group_class=killing(("adapt", 3, 1)), max_recoveries=0)
    (checkpoint,) = EvalPaths(tmp_path / "out").checkpoints.glob("chunk-*")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="delete it to resume"):
        fan_out(tmp_path / "out", resume=True)


def _kill_coordinator(guard: subprocess.Popen[bytes], coordinator: int) -> None:
    os.kill(coordinator, signal.SIGKILL)


def _stop_as_a_stage_does(guard: subprocess.Popen[bytes], coordinator: int) -> None:
    os.killpg(guard.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [(_kill_coordinator, 137), (_stop_as_a_stage_does, 143)],
)
def test_an_ended_coordinator_takes_its_ray_along_and_resumes(
    command: Callable[[Path], list[str]],
    fan_out,
    evaluated,
    tmp_path: Path,
    end: Any,
    exit_code: int,
):
    out, wanted = tmp_path / "out", evaluated(2)
    words = [sys.executable, "-m", "launcher.fanout", *command(out), "--workers", "2"]
    guard = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    _wait_until(lambda: (read_json(EvalPaths(out).progress) or {}).get("chunk"))
    progress = read_json(EvalPaths(out).progress)
    end(guard, progress["coordinator"])
    assert guard.wait() == exit_code
    pids = [progress["coordinator"], *(worker["pid"] for worker in progress["workers"])]
    _wait_until(lambda: not any(_lives(pid) for pid in pids))
    assert not EvalPaths(out).result.exists()
    fan_out(out, resume=True)
    assert_same_numbers(out, wanted)


def _wait_until(condition: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_worker_that_hangs_is_replaced_and_changes_no_number(
    fan_out, evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patience, "FLOOR_S", 3.0)
    result = fan_out(tmp_path / "out", group_class=stopping(("adapt", 2, 1)))
    [recovery] = result["recoveries"]
    assert recovery["cause"].startswith("hung: no adapt from worker")
    assert_same_numbers(tmp_path / "out", evaluated(2))
