"""A node that lends its CPUs and GPUs to the Ray of another node of its job.

1. It waits for an invitation, starts a Ray node of its own folder and ports, joined to the head,
   and ends it when the invitation is withdrawn.
2. A Ray node that dies is started again: the group of workers is rebuilt on it.
3. What goes wrong is reported to the first node, which ends the stage with these words.
4. It leaves when the stage is over. Asked to stop, it waits for that a while, so that the stage can
   end in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from golf.stage import STOP_SIGNALS, prepare_child
from launcher.fanout.meeting import Invitation, Meeting
from launcher.fanout.place import Place, own_address
from launcher.fanout.ray_settings import (
    OBJECT_STORE_BYTES,
    node_resource,
    ray_environment,
    ray_folder,
)
from launcher.tails import tail_lines

POLL_S = 0.3
STOP_WAIT_S = 20.0
"""Time for the stage to end in order after a stop signal; Slurm kills after 30 s by default."""
END_WAIT_S = 5.0
MAX_FAILURES = 3
"""Starts in a row that come to nothing, before the node gives up."""
STEADY_S = 20.0
"""A Ray node that has lived for so long did start."""
SAID_LINES = 3


class Member:
    """One task of the job beside the first."""

    def __init__(self, meeting: Meeting, place: Place) -> None:
        self.meeting, self.place = meeting, place
        self.failures = 0
        self.stopped: tuple[int, float] | None = None
        """The signal that asked us to stop, and when."""

    def run(self) -> int:
        """Serve until the stage is over; returns the exit code."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        while not self._is_over():
            invitation = self.meeting.invitation()
            wanted = self.stopped is None and self.failures < MAX_FAILURES
            if invitation is not None and wanted:
                self._serve(invitation)
            time.sleep(POLL_S)
        if self.stopped is not None:
            return 128 + self.stopped[0]
        return int(self.failures >= MAX_FAILURES)

    def _is_over(self) -> bool:
        if self.stopped is not None and time.monotonic() > self.stopped[1] + STOP_WAIT_S:
            return True
        return self.meeting.is_over

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopped = self.stopped or (number, time.monotonic())

    def _serve(self, invitation: Invitation) -> None:
        """Be a node of that Ray until the invitation is withdrawn, or it dies."""
        self._say(f"joins the Ray at {invitation.address}")
        began = time.monotonic()
        with ray_folder() as folder, self._joined(invitation, folder) as ray:
            while self._is_invited(invitation) and ray.poll() is None:
                time.sleep(POLL_S)
            if not self._is_invited(invitation):
                self.failures = 0
                return
            lived_s = time.monotonic() - began
            said = _complaint(folder.with_name("start.log"))
        self.failures = 1 if lived_s > STEADY_S else self.failures + 1
        self._say(f"its Ray ended with code {ray.returncode} after {lived_s:.0f} s: {said}")
        if self.failures >= MAX_FAILURES:
            self.meeting.report(self.place.rank, self.place.name, said)

    def _is_invited(self, invitation: Invitation) -> bool:
        return not self._is_over() and self.meeting.invitation() == invitation

    @contextlib.contextmanager
    def _joined(self, invitation: Invitation, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
        with (folder.with_name("start.log")).open("ab") as log:
            ray = subprocess.Popen(
                self._words(invitation, folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ray_environment(invitation.token), "RAY_AUTH_MODE": "token"},
                start_new_session=True,
                preexec_fn=prepare_child(),
            )
        self.meeting.report(self.place.rank, self.place.name)
        try:
            yield ray
        finally:
            ray.terminate()
            try:
                ray.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                ray.kill()  # its processes die with it
                ray.wait()

    def _words(self, invitation: Invitation, folder: Path) -> list[str]:
        address = own_address()
        return [
            *[sys.executable, "-m", "ray.scripts.scripts", "start", "--block"],
            f"--address={invitation.address}",
            *([f"--node-ip-address={address}"] if address else []),
            f"--num-cpus={invitation.num_cpus}",
            f"--num-gpus={invitation.num_gpus}",
            f"--resources={json.dumps({node_resource(self.place.rank): invitation.num_cpus})}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={folder}",
            # Any free ports; Ray's defaults are fixed ones, which another user may hold.
            *["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"],
            "--include-log-monitor=false",
        ]

    def _say(self, text: str) -> None:
        """Into the job's output; the stage's log belongs to the first node."""
        stamp = time.strftime("%F %T")
        print(f"[{stamp}] node {self.place.name} {text}", file=sys.stderr, flush=True)


def _complaint(log: Path) -> str:
    """The end of what `ray start` printed, without what it says when all is well."""
    lines = [line for line in tail_lines(log, 50) if not re.search(r"\b(INFO|SUCC)\b", line)]
    return " / ".join(lines[-SAID_LINES:]) or "it gives no reason"
