"""Where the nodes of one job find each other: small files in a folder that all of them see.

1. The first task begins the meeting under the job's id and its attempt, so that nothing which an
   earlier attempt left behind counts.
2. Whoever starts a Ray on the first node invites the others with its address and token, in a file
   that its owner alone can read, and withdraws the invitation when this Ray ends.
3. The others say how they fare, so that the first can quote them.
4. The first task ends the meeting, and the others leave.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from golf.records import RunError, read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A Ray to join, and what each node is to offer to it."""

    session: str
    """Differs from one Ray to the next."""
    address: str
    token: str
    num_cpus: int
    num_gpus: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """How another node fares."""

    attempt: str
    rank: int
    name: str
    problem: str = ""


class Meeting:
    """The meeting of one attempt of one job."""

    def __init__(self, folder: Path, attempt: str) -> None:
        self.folder, self.attempt = folder, attempt

    @classmethod
    def under_way(cls, folder: Path) -> Meeting:
        """The meeting that the first task has begun.

        Raises:
            RunError: there is none.
        """
        state = read_json(folder / "meeting.json")
        if state is None or state["over"]:
            raise RunError(
                f"no job of several nodes meets in {folder}; golf-launch submits one to Slurm for "
                "fanout.nodes > 1, and by hand it is --set fanout.nodes=1"
            )
        return cls(folder, state["attempt"])

    # ---- the first node ----

    def begin(self) -> None:
        self._write(over=False)

    def invite(self, invitation: Invitation) -> None:
        self._write(over=False, invitation=invitation)

    def withdraw(self) -> None:
        self._write(over=False)

    def end(self) -> None:
        self._write(over=True)

    def reports(self) -> list[Report]:
        """What the other nodes of this attempt have said, in their order."""
        found = [read_json(path) for path in self.folder.glob("node-*.json")]
        reports = [Report(**report) for report in found if report is not None]
        ours = [report for report in reports if report.attempt == self.attempt]
        return sorted(ours, key=lambda report: report.rank)

    # ---- the others ----

    def invitation(self) -> Invitation | None:
        invitation = self._read().get("invitation")
        return None if invitation is None else Invitation(**invitation)

    @property
    def is_over(self) -> bool:
        return bool(self._read().get("over"))

    def report(self, rank: int, name: str, problem: str = "") -> None:
        report = Report(attempt=self.attempt, rank=rank, name=name, problem=problem)
        write_json(self.folder / f"node-{rank}.json", asdict(report))

    # ---- within ----

    def _read(self) -> dict[str, Any]:
        """What the first node last wrote in this attempt."""
        state: dict[str, Any] = read_json(self.folder / "meeting.json") or {}
        return state if state.get("attempt") == self.attempt else {}

    def _write(self, *, over: bool, invitation: Invitation | None = None) -> None:
        """Written whole, and never readable by anyone else: it may hold the token."""
        self.folder.mkdir(exist_ok=True)
        state = {
            "attempt": self.attempt,
            "over": over,
            "invitation": None if invitation is None else asdict(invitation),
        }
        temporary = self.folder / f".meeting.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(state, file)
        temporary.replace(self.folder / "meeting.json")
