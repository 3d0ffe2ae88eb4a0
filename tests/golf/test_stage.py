from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from golf import stage
from golf.records import RunError
from golf.stage import run_stage

DEADLINE_S = 30.0

CHECKPOINTING = """
import signal, sys, time
def stop(number, frame):
    print("checkpoint written", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""


def write_spec(folder: Path, *commands: dict[str, Any], **more: str) -> None:
    spec = {"seed": 1, "stage": "train", "commands": commands, **more}
    (folder / "stage.json").write_text(json.dumps(spec))


def command(code: str, name: str = "work", done: str | None = None) -> dict[str, Any]:
    return {"name": name, "argv": [sys.executable, "-c", code], "done": done}


def status(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return result


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "golf", "stage", str(folder)])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def log(folder: Path) -> str:
    path = folder / "log.txt"
    return path.read_text() if path.exists() else ""


def test_commands_run_in_order_and_their_output_is_kept(tmp_path: Path) -> None:
    write_spec(
        tmp_path,
        command("print('one')", "first"),
        command("import sys; print('two', file=sys.stderr)", "second"),
    )
    assert run_stage(tmp_path) == 0
    assert [line for line in log(tmp_path).splitlines() if "$" not in line] == ["one", "two"]
    told = status(tmp_path)
    assert (told["state"], told["exit_code"], told["attempt"]) == ("done", 0, 1)
    assert [(c["name"], c["exit_code"]) for c in told["commands"]] == [("first", 0), ("second", 0)]


def test_output_is_kept_byte_for_byte_also_where_it_is_no_text(tmp_path: Path) -> None:
    write_spec(
        tmp_path, command("import os; os.write(1, b'\\xe2\\x82'); os.write(1, b'\\xac\\xff')")
    )
    assert run_stage(tmp_path) == 0
    assert (tmp_path / "log.txt").read_bytes().endswith(b"\n\xe2\x82\xac\xff")


def test_a_failed_command_ends_the_stage_with_its_exit_code(tmp_path: Path) -> None:
    write_spec(tmp_path, command("raise SystemExit(3)", "verify"), command("print('never')"))
    assert run_stage(tmp_path) == 3
    assert "never" not in log(tmp_path).splitlines()
    told = status(tmp_path)
    assert (told["state"], told["command"]) == ("failed", "verify")
    assert told["reason"] == "verify exited with code 3"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_told_by_name_and_only_by_the_command_that_met_it(
    number: int, tmp_path: Path
) -> None:
    code = f"import os; raise OSError({number}, os.strerror({number}))"
    write_spec(tmp_path, command(code, "train"))
    assert run_stage(tmp_path) == 1
    assert status(tmp_path)["reason"] == f"train exited with code 1: {os.strerror(number)}"
    write_spec(tmp_path, command("raise SystemExit(1)", "train"))
    assert run_stage(tmp_path) == 1
    assert status(tmp_path)["reason"] == "train exited with code 1"


def test_a_second_attempt_skips_what_is_done_and_repeats_what_is_not(tmp_path: Path) -> None:
    first = "open('{0}', 'a').write('x')"
    failing = f"import os; n = {str(tmp_path / 'ready')!r}; raise SystemExit(not os.path.exists(n))"
    write_spec(
        tmp_path,
        command(first.format(tmp_path / "result"), done="result"),
        command(failing, "second"),
    )
    assert run_stage(tmp_path) == 1
    (tmp_path / "ready").touch()
    assert run_stage(tmp_path) == 0
    assert (tmp_path / "result").read_text() == "x"
    assert status(tmp_path)["attempt"] == 2


def test_a_command_that_wrote_its_result_and_failed_runs_again(tmp_path: Path) -> None:
    over_budget = "open('{0}', 'a').write('x'); raise SystemExit(3)"
    write_spec(tmp_path, command(over_budget.format(tmp_path / "sizes"), "quantize", done="sizes"))
    assert run_stage(tmp_path) == run_stage(tmp_path) == 3
    assert (tmp_path / "sizes").read_text() == "xx"


def test_a_command_that_does_not_exist_fails_with_its_name_in_the_log(tmp_path: Path) -> None:
    write_spec(tmp_path, {"name": "work", "argv": ["no-such-program"], "done": None})
    assert run_stage(tmp_path) == 127
    assert "cannot start no-such-program" in log(tmp_path)


def test_golf_and_torchrun_are_modules_of_this_interpreter() -> None:
    assert stage._interpreted(("golf", "eval"))[:3] == [sys.executable, "-m", "golf"]
    assert stage._interpreted(("torchrun", "-m", "golf")) == [
        sys.executable, "-m", "torch.distributed.run", "-m", "golf",
    ]  # fmt: skip


def test_a_folder_without_a_stage_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"stage\.json describes no stage"):
        run_stage(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_stop_signal_lets_the_command_write_its_checkpoint(
    number: signal.Signals, tmp_path: Path
) -> None:
    write_spec(tmp_path, command(CHECKPOINTING), command("print('never')"))
    process = start(tmp_path)
    wait_until(lambda: "ready" in log(tmp_path).splitlines())
    process.send_signal(number)
    assert process.wait(DEADLINE_S) == 128 + number
    assert log(tmp_path).endswith("checkpoint written\n")
    told = status(tmp_path)
    assert (told["state"], told["reason"]) == ("cancelled", f"stopped by {number.name}")


def test_a_killed_command_is_told_with_its_signal(tmp_path: Path) -> None:
    write_spec(
        tmp_path, command("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "train")
    )
    assert run_stage(tmp_path) == 137
    assert status(tmp_path)["reason"] == "train was killed by SIGKILL (out of memory?)"


def test_a_command_that_stops_by_itself_to_be_started_again_has_not_failed(tmp_path: Path) -> None:
    write_spec(tmp_path, command("raise SystemExit(143)", "ttt"), command("print('never')"))
    assert run_stage(tmp_path) == 143
    told = status(tmp_path)
    assert (told["state"], told["reason"]) == (
        "cancelled",
        "ttt was stopped; started again it goes on",
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's death signal")
def test_when_the_stage_is_killed_outright_its_command_stops_with_a_checkpoint(
    tmp_path: Path,
) -> None:
    write_spec(tmp_path, command(CHECKPOINTING))
    process = start(tmp_path)
    wait_until(lambda: "ready" in log(tmp_path).splitlines())
    process.kill()
    process.wait()
    wait_until(lambda: "checkpoint written" in log(tmp_path).splitlines())
    assert status(tmp_path)["state"] == "running"  # nobody was left to say otherwise


def test_two_processes_never_work_on_one_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(tmp_path, command(CHECKPOINTING))
    process = start(tmp_path)
    wait_until(lambda: "ready" in log(tmp_path).splitlines())
    monkeypatch.setattr(stage, "LOCK_WAIT_S", 0.0)
    with pytest.raises(RunError, match="another process works on"):
        run_stage(tmp_path)
    process.terminate()
    process.wait(DEADLINE_S)
    assert log(tmp_path).splitlines().count("ready") == 1


def test_the_heartbeat_renews_the_status_while_a_command_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "HEARTBEAT_S", 0.05)
    out = tmp_path / "seen"
    watching = f"""
import json, pathlib, time
status = pathlib.Path({str(tmp_path / "status.json")!r})
def beat(): return json.loads(status.read_text())["updated_at"]
first, deadline = beat(), time.monotonic() + {DEADLINE_S}
while beat() == first and time.monotonic() < deadline: time.sleep(0.02)
pathlib.Path({str(out)!r}).write_text(str(beat() > first))
"""
    write_spec(tmp_path, command(watching))
    assert run_stage(tmp_path) == 0
    assert out.read_text() == "True"


def test_the_stage_s_environment_reaches_its_commands(tmp_path: Path) -> None:
    spec = {
        "seed": None,
        "stage": "prepare",
        "env": {"OMP_NUM_THREADS": "3"},
        "commands": [command("import os; print('threads', os.environ['OMP_NUM_THREADS'])")],
    }
    (tmp_path / "stage.json").write_text(json.dumps(spec))
    assert run_stage(tmp_path) == 0
    assert "threads 3" in log(tmp_path)
    assert os.environ.get("OMP_NUM_THREADS") != "3"


@pytest.mark.parametrize("image", ["sha256:other", None])
def test_a_stage_in_another_image_than_it_wants_does_no_work(
    tmp_path: Path, image: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(
        tmp_path, command(f"open({str(tmp_path / 'worked')!r}, 'w')"), image_id="sha256:wanted"
    )
    if image is not None:
        monkeypatch.setenv("GOLF_IMAGE", image)
    assert run_stage(tmp_path) == 2
    assert status(tmp_path)["state"] == "failed"
    assert "container.image_id wants sha256:wanted" in status(tmp_path)["reason"]
    assert log(tmp_path) == ""
    monkeypatch.setenv("GOLF_IMAGE", "sha256:wanted")
    assert run_stage(tmp_path) == 0
