"""How jobs ended, kept for later: Slurm forgets within minutes where a site keeps no accounts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from golf.records import read_lines
from launcher.executors.slurm_queue import Job


class EndedJobs:
    """`jobs/ended.jsonl`; several watchers may write it, a line a job."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs = {line["id"]: Job(**line) for line in read_lines(path)}

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def keep(self, jobs: Iterable[Job]) -> None:
        """Write down those that are over and not yet known."""
        fresh = [job for job in jobs if job.is_over and job.id not in self._jobs]
        if not fresh:
            return
        self._jobs |= {job.id: job for job in fresh}
        lines = (json.dumps(dataclasses.asdict(job)) for job in fresh)
        # What cannot be written, on a full disk, this watcher still remembers.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
