"""How the nodes of one job find each other, and what is said when one does not come."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from golf.records import RunError
from launcher.fanout import member as member_module
from launcher.fanout import patience, private_ray
from launcher.fanout.meeting import Invitation, Meeting
from launcher.fanout.member import MAX_FAILURES, Member
from launcher.fanout.patience import Patience
from launcher.fanout.place import Place, interface_of
from launcher.fanout.task import run_task

INVITATION = Invitation(
    session="s1", address="192.0.2.1:6000", token="secret", num_cpus=1, num_gpus=0
)
SLURM = {"SLURM_PROCID": "1", "SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n2"}


def place(rank: int = 1) -> Place:
    return Place(rank=rank, name=f"n{rank + 1}", attempt="12.0")


# ---- meeting ----


def test_an_invitation_is_for_its_owner_s_eyes_and_is_gone_once_withdrawn(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Meeting(tmp_path, "12.0").invite(INVITATION)
    finally:
        os.umask(old)
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Meeting(tmp_path, "12.0").invitation() == INVITATION
    Meeting(tmp_path, "12.0").withdraw()
    assert Meeting(tmp_path, "12.0").invitation() is None
    assert "secret" not in file.read_text()


def test_what_an_earlier_attempt_left_behind_does_not_count(tmp_path: Path) -> None:
    before, now = Meeting(tmp_path, "12.0"), Meeting(tmp_path, "12.1")
    before.invite(INVITATION)
    before.report(1, "n2", "no Ray here")
    assert now.invitation() is None
    assert now.reports() == []
    before.end()
    assert not now.is_over


def test_nodes_without_a_job_that_holds_a_meeting_are_told_the_fix(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--set fanout\.nodes=1"):
        Meeting.under_way(tmp_path)
    Meeting(tmp_path, "12.0").begin()
    assert Meeting.under_way(tmp_path).attempt == "12.0"
    Meeting(tmp_path, "12.0").end()
    with pytest.raises(RunError, match="no job of several nodes"):
        Meeting.under_way(tmp_path)


# ---- place ----


def test_a_task_learns_its_place_from_slurm() -> None:
    assert Place.from_slurm(SLURM) == place()
    assert Place.from_slurm({**SLURM, "SLURM_RESTART_COUNT": "2"}).attempt == "12.2"
    with pytest.raises(RunError, match="SLURM_PROCID is not set"):
        Place.from_slurm({})


def test_an_interface_is_known_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.77") is None


# ---- task ----


def test_the_first_task_runs_the_stage_and_ends_the_meeting_however_that_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SLURM, "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match="describes no stage"):
        run_task(tmp_path)
    assert Meeting(tmp_path / "nodes", "12.0").is_over


# ---- member ----


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A member whose Ray is a program of the test's choice; its signal handlers are put back."""
    monkeypatch.setattr(member_module, "POLL_S", 0.02)
    handlers = {number: signal.getsignal(number) for number in member_module.STOP_SIGNALS}

    def make(program: str) -> Member:
        made = Member(Meeting(tmp_path, "12.0"), place())
        monkeypatch.setattr(made, "_words", lambda *_: [sys.executable, "-c", program])
        return made

    yield make
    for number, handler in handlers.items():
        signal.signal(number, handler)


def wait_until(condition: Any) -> None:
    for _ in range(1500):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("waited too long")


def in_background(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_node_where_ray_does_not_start_says_why_and_fails_with_the_stage(
    member: Any, tmp_path: Path
) -> None:
    meeting = Meeting(tmp_path, "12.0")
    meeting.invite(INVITATION)

    def end_once_told() -> None:
        wait_until(lambda: any(report.problem for report in meeting.reports()))
        meeting.end()

    thread = in_background(end_once_told)
    ill = member("import sys; sys.exit('no module named ray')")
    assert ill.run() == 1
    thread.join()
    assert ill.failures == MAX_FAILURES
    [report] = meeting.reports()
    assert (report.name, report.problem) == ("n2", "no module named ray")


def test_a_node_serves_as_long_as_it_is_invited_and_then_leaves_nothing(
    member: Any, tmp_path: Path
) -> None:
    meeting = Meeting(tmp_path, "12.0")
    meeting.invite(INVITATION)
    mark = tmp_path / "pid"
    runs = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def withdraw_once_up() -> None:
        wait_until(lambda: mark.exists() and mark.read_text())
        meeting.withdraw()
        pid = int(mark.read_text())
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        meeting.end()

    thread = in_background(withdraw_once_up)
    assert member(runs).run() == 0
    thread.join()


def test_the_first_node_names_the_one_that_does_not_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_ray, "missing_nodes", lambda num_nodes: [1, 2])
    monkeypatch.setattr(private_ray, "JOIN_TIMEOUT_S", 0.0)
    meeting = Meeting(tmp_path, "12.0")
    meeting.report(1, "n2")
    with pytest.raises(
        RunError, match=r"n2, the job's task 2 did not join the Ray at 192\.0\.2\.1"
    ):
        private_ray._wait_for_nodes(meeting, INVITATION.address, 3)
    meeting.report(1, "n2", "no module named ray")
    with pytest.raises(RunError, match="n2: no module named ray"):
        private_ray._wait_for_nodes(meeting, INVITATION.address, 3)


# ---- patience ----


def test_a_first_call_may_load_and_later_ones_are_held_against_the_longest() -> None:
    limits = Patience(1800.0)
    assert limits.limit_s("score") == 1800
    limits.learn("score", 10.0)
    limits.learn("score", 1.0)
    assert limits.limit_s("score") == 10 * patience.FACTOR
    assert limits.limit_s("adapt") == 1800
    limits.learn("adapt", 0.01)
    assert limits.limit_s("adapt") == patience.FLOOR_S
    limits.start_anew()
    assert limits.limit_s("score") == 1800
    short = Patience(5.0)
    short.learn("score", 0.01)
    assert short.limit_s("score") == 5, "a shorter setting holds for all calls"
