"""Is that process still there? Answered for this machine, and safe against reused process ids."""

from __future__ import annotations

import os
from pathlib import Path

CLOCK_SLACK_S = 2.0
"""The kernel tells its boot time in whole seconds."""


def is_alive(pid: int, seen_at: float) -> bool:
    """Whether the process that had `pid` at `seen_at` (seconds since the epoch) still runs.

    A process that has exited and was not reaped counts as gone, and so does a younger process to
    which the kernel gave the same number.
    """
    if not Path("/proc/self/stat").exists():
        return _answers(pid)
    try:
        # The command's name, in parentheses, may hold anything; the numbers follow the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    state, start_ticks = fields[0], int(fields[19])
    if state in "ZX":
        return False
    return _boot_time() + start_ticks / os.sysconf("SC_CLK_TCK") <= seen_at + CLOCK_SLACK_S


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise AssertionError("/proc/stat tells no boot time")


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
