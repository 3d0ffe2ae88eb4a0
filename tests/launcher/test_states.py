from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from golf.records import StagePaths, write_json
from launcher.processes import is_alive
from launcher.states import (
    BAD,
    HEARTBEAT_LIMIT_S,
    TERMINAL,
    Observation,
    StageStatus,
    State,
    read_status,
    run_state,
)


def write(paths: StagePaths, state: str, **fields: Any) -> None:
    told = {
        "state": state,
        "reason": "",
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "updated_at": time.time(),
        **fields,
    }
    write_json(paths.status, told)


def job(state: State) -> Observation:
    return Observation(state=state, evidence="the scheduler says so", seen_at=time.time())


def read(paths: StagePaths, seen: Observation | None = None) -> StageStatus:
    return read_status(paths, seen, time.time())


@pytest.fixture
def paths(tmp_path: Path) -> StagePaths:
    return StagePaths(tmp_path)


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_a_stage_said_at_its_end_is_believed_whatever_the_scheduler_says(
    state: State, paths: StagePaths
) -> None:
    write(paths, state)
    assert read(paths, job(State.RUNNING)).state is state


def test_a_running_stage_is_believed_while_its_process_lives(paths: StagePaths) -> None:
    write(paths, "running", command="train")
    status = read(paths, job(State.LOST))
    assert status.state is State.RUNNING
    assert f"process {os.getpid()}" in status.observation.evidence


def test_a_stage_whose_process_is_gone_is_lost_and_says_where(paths: StagePaths) -> None:
    pid = ended_pid()
    write(paths, "running", command="train", pid=pid)
    status = read(paths, job(State.RUNNING))
    assert status.state is State.LOST
    assert status.reason == f"it vanished in train: process {pid} is gone"


def test_a_stage_on_another_machine_is_judged_by_its_heartbeat(paths: StagePaths) -> None:
    write(paths, "running", host="elsewhere")
    assert read(paths).state is State.RUNNING
    write(paths, "running", host="elsewhere", updated_at=time.time() - 2 * HEARTBEAT_LIMIT_S)
    status = read(paths)
    assert status.state is State.LOST
    assert "no heartbeat from elsewhere for 120 s" in status.reason


@pytest.mark.parametrize(
    ("seen", "state"),
    [(None, State.PLANNED), (State.RUNNING, State.WAITING), (State.LOST, State.LOST)],
)
def test_before_a_stage_speaks_its_job_does(
    seen: State | None, state: State, paths: StagePaths
) -> None:
    assert read(paths, job(seen) if seen else None).state is state


def test_an_announced_job_is_waited_for_a_while_and_then_counts_as_never_submitted(
    paths: StagePaths,
) -> None:
    now = time.time()
    write_json(paths.status, {"state": "waiting", "reason": "submitted", "updated_at": now})
    assert read_status(paths, None, now + 1).state is State.WAITING
    assert read_status(paths, None, now + 100).state is State.PLANNED
    assert read_status(paths, None, now + 1, submission_limit_s=0).state is State.PLANNED


def test_the_age_of_what_is_known_is_told(paths: StagePaths) -> None:
    write(paths, "done", updated_at=1000.0)
    assert read(paths).observation.age_s(1060.0) == 60.0


def test_a_run_stands_where_its_first_stage_that_is_not_done_stands() -> None:
    assert run_state([State.DONE, State.RUNNING]) is State.RUNNING
    assert run_state([State.FAILED, State.SKIPPED]) is State.FAILED
    assert run_state([State.DONE, State.DONE]) is State.DONE


def test_done_is_the_only_good_end() -> None:
    assert {State.DONE} == TERMINAL - BAD
    assert not {State.PLANNED, State.WAITING, State.RUNNING} & TERMINAL


def test_a_disk_without_space_is_a_reason_where_the_stage_could_give_none(
    paths: StagePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = ruling(State.FAILED, reason="Slurm says FAILED")
    write(paths, "running", host="elsewhere")
    assert read(paths, ended).reason == "Slurm says FAILED"
    full = os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert read(paths, ended).reason == (
        f"Slurm says FAILED; No space left on device in {paths.root}"
    )
    assert "No space" not in read(paths, ruling(State.RUNNING)).reason


def test_a_process_is_alive_until_it_ends_and_a_younger_one_with_its_number_is_another() -> None:
    assert is_alive(os.getpid(), time.time())
    assert not is_alive(ended_pid(), time.time())
    assert not is_alive(os.getpid(), seen_at=1000.0)


def test_a_process_that_nobody_reaped_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    deadline = time.monotonic() + 10
    while is_alive(process.pid, time.time()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process.pid, time.time())
    assert process.returncode is None
    process.wait()
    process.stdout.close()


def ruling(state: State, **fields: Any) -> Observation:
    """The word of a scheduler that starts and ends the job's processes itself."""
    now = time.time()
    return Observation(state=state, evidence="job 7", seen_at=now, rules=True, **fields)


def test_what_an_earlier_attempt_said_is_out_of_date_once_the_job_is_queued_again(
    paths: StagePaths,
) -> None:
    write(paths, "cancelled", reason="stopped by SIGTERM", updated_at=time.time() - 5)
    queued = ruling(State.WAITING, reason="attempt 2 waits", began_at=time.time())
    assert read(paths, queued).state is State.WAITING
    assert read(paths, queued).reason == "attempt 2 waits"


def test_a_stage_that_was_interrupted_is_not_over_while_its_job_lives(paths: StagePaths) -> None:
    write(paths, "cancelled", reason="stopped by SIGUSR2")
    assert read(paths, ruling(State.RUNNING, began_at=time.time() - 60)).state is State.WAITING
    assert read(paths, ruling(State.CANCELLED)).state is State.CANCELLED


def test_a_job_that_the_scheduler_ended_is_told_in_its_words(paths: StagePaths) -> None:
    write(paths, "running", command="train", host="elsewhere")
    status = read(paths, ruling(State.FAILED, reason="ran out of memory"))
    assert (status.state, status.reason) == (State.FAILED, "ran out of memory in train")
    write(paths, "done")
    assert read(paths, ruling(State.LOST, reason="lost its node")).state is State.DONE


def test_a_silent_stage_whose_job_runs_is_not_lost(paths: StagePaths) -> None:
    write(paths, "running", host="elsewhere", updated_at=time.time() - 2 * HEARTBEAT_LIMIT_S)
    assert read(paths, ruling(State.RUNNING, began_at=time.time() - 900)).state is State.RUNNING
