"""`python -m launcher.fanout.task FOLDER`: one task of a stage that runs on several nodes.

1. The first task runs the stage, as `golf stage FOLDER` does, and holds the meeting of the nodes.
2. Each other task lends its node to whatever Ray the stage starts, until the stage is over.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from golf.cli import run_command
from golf.stage import run_stage
from launcher.fanout.meeting import Meeting
from launcher.fanout.member import Member
from launcher.fanout.place import Place
from launcher.plan import MEETING


def main(argv: Sequence[str]) -> int:
    """Run this task; returns the exit code."""
    return run_command(lambda: run_task(Path(argv[0])))


def run_task(folder: Path) -> int:
    """Run this task of the stage in `folder`; returns its exit code.

    Raises:
        RunError: no Slurm around us, or a stage that cannot be run.
    """
    place = Place.from_slurm(os.environ)
    meeting = Meeting(folder / MEETING, place.attempt)
    if place.rank > 0:
        return Member(meeting, place).run()
    meeting.begin()
    try:
        return run_stage(folder)
    finally:
        meeting.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
