"""Stages as real processes of this machine, through submitit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import (
    MACHINE,
    FakeClock,
    Lab,
    python,
    stage,
    train_and_eval,
    wait_until,
)

from launcher.clock import SystemClock
from launcher.errors import LaunchError
from launcher.executors.local_job import LocalRequest
from launcher.experiment import Experiment
from launcher.machine import Machine
from launcher.states import State
from launcher.submit import cancel_and_wait, submit_missing
from launcher.watch import Watcher

SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("sleeping", flush=True)
time.sleep(120)
"""


def log(experiment: Experiment, key: str) -> str:
    path = experiment.paths.stage(key).log
    return path.read_text() if path.exists() else ""


def stage_pid(experiment: Experiment, key: str) -> int:
    pid: int = json.loads(experiment.paths.stage(key).status.read_text())["pid"]
    return pid


def test_one_seed_s_failure_stops_no_other_and_resume_runs_only_what_is_missing(
    lab: Lab, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    failing = f"import os; assert os.path.exists({str(mended)!r}), 'not mended'"
    experiment = lab.register([*train_and_eval(1, "print('one')"), *train_and_eval(2, failing)])
    executor = lab.executor(experiment)
    submitted = submit_missing(experiment, executor)
    assert [s.key for s in submitted] == ["1/train", "1/eval", "2/train", "2/eval"]
    assert lab.wait_until_over(experiment) == {
        "1/train": State.DONE,
        "1/eval": State.DONE,
        "2/train": State.FAILED,
        "2/eval": State.SKIPPED,
    }
    statuses = lab.statuses(experiment)
    assert statuses["2/train"].reason == "work exited with code 1"
    assert statuses["2/eval"].reason == "2/train failed"
    assert "not mended" in log(experiment, "2/train")

    mended.touch()
    assert [s.key for s in submit_missing(experiment, executor)] == ["2/train", "2/eval"]
    assert set(lab.wait_until_over(experiment).values()) == {State.DONE}
    assert lab.statuses(experiment)["2/train"].attempt == 2
    assert lab.statuses(experiment)["1/train"].attempt == 1
    assert submit_missing(experiment, executor) == ()


def test_stages_run_the_snapshot_and_not_the_folder_they_were_started_from(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import golf, launcher; print('FROM', golf.__file__, launcher.__file__)"
    experiment = lab.register([stage(1, "train", python(code))])
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    submit_missing(experiment, lab.executor(experiment))
    lab.wait_until_over(experiment)
    root = experiment.paths.code
    expected = f"FROM {root / 'golf/__init__.py'} {root / 'launcher/__init__.py'}"
    assert expected in log(experiment, "1/train").splitlines()


def test_cancel_stops_running_and_waiting_stages_of_one_seed_only(lab: Lab) -> None:
    experiment = lab.register([*train_and_eval(1, SLEEPER), *train_and_eval(2, SLEEPER)])
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for(experiment, "1/train", State.RUNNING)
    lab.wait_for(experiment, "2/train", State.RUNNING)
    wait_until(lambda: "sleeping" in log(experiment, "1/train").splitlines(), "the sleeper")
    before, after = cancel_and_wait(experiment, executor, ["1/train", "1/eval"], SystemClock())
    assert before["1/train"].state is State.RUNNING
    assert after["1/train"].state is State.CANCELLED
    assert after["1/eval"].state in (State.CANCELLED, State.SKIPPED)
    assert after["2/train"].state is State.RUNNING


def test_a_stage_killed_outright_is_told_within_two_looks_and_its_command_ends(lab: Lab) -> None:
    writes_pid = "import os; open('{0}', 'w').write(str(os.getpid()))\n"
    pid_file = lab.runs / "pid"
    experiment = lab.register([stage(1, "train", python(writes_pid.format(pid_file) + SLEEPER))])
    submit_missing(experiment, lab.executor(experiment))
    lab.wait_for(experiment, "1/train", State.RUNNING)
    wait_until(lambda: "sleeping" in log(experiment, "1/train").splitlines(), "the sleeper")
    watcher = Watcher(experiment, lab.executor(experiment), SystemClock())
    assert not watcher.look().is_over
    os.kill(stage_pid(experiment, "1/train"), signal.SIGKILL)
    views = watcher.views()
    view = [next(views), next(views, None)][0]
    if not view.is_over:
        view = watcher.look()
    [seed] = view.seeds
    assert seed.state is State.LOST
    assert "sleeping" in seed.stage.log_tail
    wait_until(lambda: not _exists(int(pid_file.read_text())), "the command to end with its stage")


def test_a_stage_whose_controllers_were_killed_goes_on_and_can_still_be_cancelled(lab: Lab) -> None:
    experiment = lab.register([stage(1, "train", python(SLEEPER))])
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for(experiment, "1/train", State.RUNNING)
    wait_until(lambda: "sleeping" in log(experiment, "1/train").splitlines(), "the sleeper")
    controller = int(experiment.submissions()["1/train"].job_id)
    wrapper = _parent(stage_pid(experiment, "1/train"))
    for pid in (controller, wrapper):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: executor.observe(time.time())["1/train"].state is State.LOST, "its end")
    assert lab.states(experiment)["1/train"] is State.RUNNING
    _, after = cancel_and_wait(experiment, executor, ["1/train"], SystemClock())
    assert after["1/train"].state is State.CANCELLED


def test_jobs_go_on_when_the_launcher_is_killed_outright_with_its_whole_session(
    lab: Lab, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nprint('on')"
    experiment = lab.register(
        [stage(1, "train", python(waits)), stage(1, "eval", python("print(2)"), after=["1/train"])]
    )
    launcher = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from lab import MACHINE
from launcher.executors.local import LocalExecutor
from launcher.experiment import Experiment
from launcher.submit import submit_missing
experiment = Experiment.open(Path({str(experiment.paths.root)!r}))
submit_missing(experiment, LocalExecutor(experiment, MACHINE, Path({str(lab.slots)!r})))
print("submitted", flush=True)
time.sleep(120)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", launcher], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"submitted\n"
    lab.wait_for(experiment, "1/train", State.RUNNING)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert lab.states(experiment)["1/train"] is State.RUNNING
    go.touch()
    assert set(lab.wait_until_over(experiment).values()) == {State.DONE}


def test_two_launchers_exclude_each_other_and_a_repeated_launch_doubles_nothing(lab: Lab) -> None:
    experiment = lab.register([stage(1, "train", python(SLEEPER))])
    executor = lab.executor(experiment)
    with experiment.locked():
        with pytest.raises(LaunchError, match=r"another launcher \(process \d+ on .*attach"):
            submit_missing(Experiment.open(experiment.paths.root), executor)
        with pytest.raises(LaunchError, match="another launcher"):
            cancel_and_wait(experiment, executor, ["1/train"], FakeClock())
    assert len(submit_missing(experiment, executor)) == 1
    assert submit_missing(experiment, executor) == ()
    lab.wait_for(experiment, "1/train", State.RUNNING)
    assert submit_missing(experiment, executor) == ()


def test_two_experiments_share_the_cores_of_the_machine(lab: Lab) -> None:
    one_core = Machine(num_cores=1, memory_bytes=MACHINE.memory_bytes, gpus=())
    first = lab.register([stage(1, "train", python(SLEEPER))], "first")
    second = lab.register([stage(1, "train", python("print('ran')"))], "second")
    submit_missing(first, lab.executor(first, one_core))
    lab.wait_for(first, "1/train", State.RUNNING)
    submit_missing(second, lab.executor(second, one_core))
    wait_until(
        lambda: lab.statuses(second)["1/train"].reason == "waits for 1 core to be free", "the line"
    )
    cancel_and_wait(first, lab.executor(first, one_core), ["1/train"], SystemClock())
    assert lab.wait_until_over(second) == {"1/train": State.DONE}


def test_a_stage_at_its_time_limit_stops_with_a_checkpoint_and_says_why(lab: Lab) -> None:
    experiment = lab.register([stage(1, "train", python(SLEEPER))])
    request = LocalRequest(
        experiment=str(experiment.paths.root),
        key="1/train",
        after=(),
        num_cores=1,
        num_gpus=0,
        time_limit_s=0.6,
        slots_folder=str(lab.slots),
        machine_cores=1,
        machine_gpus=(),
    )
    code = "import json, sys; from launcher.executors.local_stage import run; "
    code += "sys.exit(run(json.loads(sys.argv[1])))"
    words = [sys.executable, "-c", code, json.dumps(dataclasses.asdict(request))]
    assert subprocess.run(words, check=False).returncode != 0
    status = lab.statuses(experiment)["1/train"]
    assert status.state is State.FAILED
    assert status.reason.startswith("reached its time limit of 0.01 min (resources.time_minutes)")


def test_jobs_that_cannot_be_started_are_told_with_the_reason(lab: Lab) -> None:
    experiment = lab.register([stage(1, "train", python("pass"))])
    (experiment.paths.code / "launcher/executors/local_submit.py").write_text("raise OSError('no')")
    with pytest.raises(LaunchError, match="could not start the jobs: OSError: no"):
        submit_missing(experiment, lab.executor(experiment))
    assert lab.states(experiment) == {"1/train": State.PLANNED}


def _exists(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
