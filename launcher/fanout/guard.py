"""Runs the coordinator in a session of its own, and cleans up behind it.

1. A signal to a job's process group would reach Ray's processes together with the coordinator, and
   take them away under it. So only this process stays in the group, and hands the signal on to the
   coordinator alone, which ends its Ray in order.
2. Ray's folder is made here and removed here, however the coordinator ended.
3. Should this process be killed, Linux sends the coordinator SIGTERM.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from golf.stage import prepare_child
from launcher.fanout.ray_settings import ray_folder

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_guarded(argv: Sequence[str]) -> int:
    """Run the coordinator with this command line; returns its exit code, as a shell tells it."""
    with ray_folder() as folder:
        words = [sys.executable, "-m", "launcher.fanout.coordinator", *argv]
        child = subprocess.Popen(
            [*words, "--ray-folder", str(folder)],
            start_new_session=True,
            preexec_fn=prepare_child(),
            close_fds=False,  # a stage's lock is held as long as anyone works on the stage
        )

        def hand_on(number: int, frame: FrameType | None) -> None:
            child.send_signal(signal.SIGTERM)

        for number in STOP_SIGNALS:
            signal.signal(number, hand_on)
        returncode = child.wait()
    return returncode if returncode >= 0 else 128 - returncode
