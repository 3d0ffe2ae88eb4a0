"""What the launcher asks of a place where stages run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from launcher.stage import Stage
from launcher.states import Observation


@dataclass(frozen=True, kw_only=True)
class Silence:
    """The place does not answer; what is told of its jobs is old."""

    reason: str
    heard_at: float | None
    """When it last answered, in seconds since the epoch; None for never."""


class Executor(Protocol):
    """Submits the stages of one experiment, tells of their jobs and cancels them.

    A job outlives the launcher that submitted it. What it runs is `golf stage DIR`; everything
    else about a stage is read from its folder.
    """

    name: str
    cancel_every_s: float
    """Seconds between two looks while jobs are being cancelled."""

    def submit(self, stages: Sequence[Stage], lock: int) -> None:
        """Submit stages, those that others wait for first, and record each submission.

        `lock` is the descriptor of the experiment's lock; a process that goes on submitting when
        the launcher has died must hold it.

        Raises:
            LaunchError: the place refused them.
        """

    def adopt(self) -> None:
        """Record jobs that a killed launcher submitted and did not record; needs the lock.

        Raises:
            LaunchError: the place cannot be asked, so that submitting could double jobs.
        """

    def observe(self, now: float) -> dict[str, Observation]:
        """Every submitted job as the place sees it, by stage; one question for all of them."""

    def silence(self) -> Silence | None:
        """Why and since when the place has not answered, if it did not at the latest look."""

    def cancel(self, stages: Sequence[str]) -> None:
        """Ask these stages' jobs to stop with a checkpoint; those that have ended are left alone.

        Raises:
            LaunchError: this machine cannot reach them.
        """
