"""What the launcher asks of a place where stages run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from launcher.experiment import Submission
from launcher.stage import Stage
from launcher.states import Observation


class Executor(Protocol):
    """Submits the stages of one experiment, tells of their jobs and cancels them.

    A job outlives the launcher that submitted it. What it runs is `golf stage DIR`; everything
    else about a stage is read from its folder.
    """

    name: str

    def submit(self, stages: Sequence[Stage], lock: int) -> None:
        """Submit stages, those that others wait for first, and record each submission.

        `lock` is the descriptor of the experiment's lock; a process that goes on submitting when
        the launcher has died must hold it.

        Raises:
            LaunchError: the place refused them.
        """

    def observe(self, submissions: Sequence[Submission], now: float) -> dict[str, Observation]:
        """The jobs as the place sees them, by stage; one question however many there are."""

    def cancel(self, submissions: Sequence[Submission]) -> None:
        """Ask the jobs to stop with a checkpoint; those that have ended are left alone."""
