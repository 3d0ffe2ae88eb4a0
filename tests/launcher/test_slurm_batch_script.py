"""Which endings of a step put its job back into the queue. Slurm is two lines of shell here."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import resources
from pathlib import Path

import pytest

SCRIPT = resources.files("launcher.executors").joinpath("slurm_batch.sh").read_text()
SCONTROL = '#!/bin/sh\necho "$@" >>"$ASKED"\nkill -9 $PPID\n'
"""As Slurm does, it ends the script that asks to be put back."""
VALUES = """
name=test:eval-1
max_attempts={max_attempts}
folders=({folder})
command=(sh -c 'exit {code}')
setup() {{ :; }}
"""


def run(folder: Path, code: int, state: str, max_attempts: int = 3) -> tuple[list[str], str]:
    """Events that the script notes, and what it asks of Slurm, where the step ends with `code`."""
    (folder / "scontrol").write_text(SCONTROL)
    (folder / "scontrol").chmod(0o755)
    (folder / "status.json").write_text(json.dumps({"state": state}, indent=2))
    asked = folder / "asked"
    env = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "ASKED": str(asked),
        "SLURM_JOB_ID": "12",
    }
    values = VALUES.format(folder=folder, code=code, max_attempts=max_attempts)
    subprocess.run(["bash", "-c", values + SCRIPT], env=env, capture_output=True, check=False)
    lines = (folder / "attempts.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    return events, asked.read_text().strip() if asked.exists() else ""


@pytest.mark.parametrize(
    ("code", "state"),
    [
        pytest.param(140, "cancelled", id="warned"),
        pytest.param(143, "cancelled", id="stopped"),
        pytest.param(137, "cancelled", id="another node's task was killed, so this was stopped"),
    ],
)
def test_what_was_interrupted_goes_back_into_the_queue(
    code: int, state: str, tmp_path: Path
) -> None:
    assert run(tmp_path, code, state) == (["started", "requeued"], "requeue 12")


@pytest.mark.parametrize(
    ("code", "state"), [(0, "done"), (1, "failed"), (137, "failed"), (137, "running")]
)
def test_what_ended_by_itself_does_not(code: int, state: str, tmp_path: Path) -> None:
    assert run(tmp_path, code, state) == (["started", "ended"], "")


def test_after_the_last_attempt_it_gives_up(tmp_path: Path) -> None:
    assert run(tmp_path, 137, "cancelled", max_attempts=1) == (["started", "gave_up"], "")
