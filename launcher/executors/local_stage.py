"""The job's side of the local executor: what submitit runs, one process a stage.

1. Wait until the stages it needs are done; if one failed, the stage is skipped.
2. Wait in line for free cores and GPUs of this machine.
3. Run `golf stage DIR`, hand it the signals that reach us, and end it at its time limit.
4. If it died without a word, write that word.

The waiting is done here, by files and locks, so that it needs no living launcher.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from golf.records import read_json, write_json
from launcher.executors.local_job import LocalRequest, observe
from launcher.executors.slots import Slots, Taken
from launcher.experiment import Experiment
from launcher.states import BAD, TERMINAL, StageStatus, State, read_status

POLL_S = 0.25
HEARTBEAT_S = 2.0
CHECKPOINT_LIMIT_S = 120.0
"""Time for a checkpoint after the time limit."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def run(fields: dict[str, Any]) -> int:
    """Entry point of the submitted job; returns the stage's exit code."""
    return _LocalStage(LocalRequest(**fields)).run()


class _StoppedError(Exception):
    """A stop signal arrived while waiting."""


class _LocalStage:
    def __init__(self, request: LocalRequest) -> None:
        self._request = request
        self._experiment = Experiment.open(Path(request.experiment))
        self._paths = self._experiment.paths.stage(request.key)
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped_by: signal.Signals | None = None
        self._written = ("", 0.0)

    def run(self) -> int:
        # submitit's own handlers would requeue the pickle; a stage stops and resumes by its files.
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            blocker = self._wait_for_stages()
            if blocker:
                self._write(State.SKIPPED, blocker)
                return 1
            taken = self._wait_for_slots()
        except _StoppedError:
            assert self._stopped_by is not None
            self._write(State.CANCELLED, f"stopped by {self._stopped_by.name} before it began")
            return 128 + self._stopped_by
        try:
            return self._run_stage(taken)
        finally:
            taken.release()

    def _wait_for_stages(self) -> str:
        """Block until every needed stage is done; the reason to skip, if one is not to be."""
        for key in self._request.after:
            while True:
                status = self._look_at(key)
                if status.state is State.DONE:
                    break
                if status.state in BAD:
                    return f"{key} {status.state}"
                self._pause(f"waits for {key}")
        return ""

    def _look_at(self, key: str) -> StageStatus:
        now = time.time()
        submission = self._experiment.submissions().get(key)
        job = observe(submission, now) if submission else None
        return read_status(self._experiment.paths.stage(key), job, now)

    def _wait_for_slots(self) -> Taken:
        wanted = self._request
        slots = Slots(
            Path(wanted.slots_folder), num_cores=wanted.machine_cores, gpus=wanted.machine_gpus
        )
        gpus = f" and {wanted.num_gpus} GPUs" if wanted.num_gpus else ""
        cores = "1 core" if wanted.num_cores == 1 else f"{wanted.num_cores} cores"
        with slots.queue() as claim:
            while True:
                taken = claim.take(wanted.num_cores, wanted.num_gpus)
                if taken is not None:
                    return taken
                self._pause(f"waits for {cores}{gpus} to be free")

    def _pause(self, reason: str) -> None:
        if self._stopped_by is not None:
            raise _StoppedError
        before, written_at = self._written
        if reason != before or time.time() - written_at > HEARTBEAT_S:
            self._write(State.WAITING, reason)
            self._written = (reason, time.time())
        time.sleep(POLL_S)

    def _run_stage(self, taken: Taken) -> int:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "golf", "stage", str(self._paths.root)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(taken.gpus)},
            pass_fds=taken.descriptors,  # the cores stay taken should this process die first
        )
        if self._stopped_by is not None:
            self._child.send_signal(signal.SIGTERM)
        timed_out = False
        try:
            exit_code = self._child.wait(self._request.time_limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            exit_code = self._end_child()
        self._check_last_word(exit_code, timed_out)
        return exit_code if exit_code >= 0 else 128 - exit_code

    def _end_child(self) -> int:
        """Ask it to stop with a checkpoint; kill it if it hangs."""
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(CHECKPOINT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()

    def _check_last_word(self, exit_code: int, timed_out: bool) -> None:
        """Correct what the stage said of itself by what its parent knows better."""
        state = State((read_json(self._paths.status) or {"state": "waiting"})["state"])
        if timed_out and state is not State.DONE:
            minutes = self._request.time_limit_s / 60
            self._write(
                State.FAILED,
                f"reached its time limit of {minutes:g} min (resources.time_minutes); "
                "golf-launch resume goes on from its checkpoint",
            )
        elif state not in TERMINAL and self._stopped_by is not None:
            self._write(State.CANCELLED, f"stopped by {self._stopped_by.name}")
        elif state not in TERMINAL and exit_code < 0:
            self._write(State.LOST, f"golf stage was killed by {signal.Signals(-exit_code).name}")
        elif state not in TERMINAL:
            self._write(State.FAILED, f"golf stage itself exited with code {exit_code}")

    def _write(self, state: State, reason: str) -> None:
        now = time.time()
        before = read_json(self._paths.status) or {}
        fields = {
            **before,
            "state": str(state),
            "reason": reason,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "updated_at": now,
        }
        if state in TERMINAL:
            fields["ended_at"] = now
        write_json(self._paths.status, fields)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._stopped_by = signal.Signals(signum)
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
