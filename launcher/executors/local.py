"""Stages as processes of this machine, through submitit's local executor.

A job's id is the process id of submitit's controller, which hands SIGTERM on to the stage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from golf.records import read_json
from launcher.errors import LaunchError
from launcher.executors import slots
from launcher.executors.base import Silence
from launcher.executors.local_job import LocalRequest, observe
from launcher.experiment import Experiment, Submission
from launcher.machine import Machine
from launcher.processes import is_alive
from launcher.stage import Stage
from launcher.states import Observation


class LocalExecutor:
    """Runs the stages of an experiment on this machine."""

    name = "local"
    cancel_every_s = 0.5

    def __init__(
        self, experiment: Experiment, machine: Machine, slots_folder: Path | None = None
    ) -> None:
        self._experiment = experiment
        self._machine = machine
        self._slots_folder = slots_folder or slots.default_folder()

    def submit(self, stages: Sequence[Stage], lock: int) -> None:
        paths = self._experiment.paths
        requests = [dataclasses.asdict(self._request(stage)) for stage in stages]
        search_path = [str(paths.code), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search_path))}
        paths.jobs.mkdir(exist_ok=True)
        log = paths.jobs / "submit.log"
        # A file and no pipe: the jobs inherit it, and a pipe would be read until they end.
        with log.open("w") as output:
            done = subprocess.run(
                [sys.executable, "-m", "launcher.executors.local_submit"],
                input=json.dumps([str(paths.root), requests]),
                text=True,
                stdout=output,
                stderr=output,
                cwd=paths.code,  # Python looks there first: the stages run the snapshot
                env=env,
                start_new_session=True,
                pass_fds=(lock,),
                check=False,
            )
        if done.returncode != 0:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise LaunchError(f"submitit could not start the jobs: {last[0]} (all of it: {log})")

    def _request(self, stage: Stage) -> LocalRequest:
        return LocalRequest(
            experiment=str(self._experiment.paths.root),
            key=stage.key,
            after=stage.after,
            num_cores=self._machine.cores_of(stage.resources),
            num_gpus=stage.resources.gpus_per_node,
            time_limit_s=60.0 * stage.resources.time_minutes,
            slots_folder=str(self._slots_folder),
            machine_cores=self._machine.num_cores,
            machine_gpus=self._machine.gpus,
        )

    def adopt(self) -> None:
        """Nothing to find: who submits holds the lock until it has recorded its jobs."""

    def observe(self, now: float) -> dict[str, Observation]:
        return {key: observe(job, now) for key, job in self._experiment.submissions().items()}

    def silence(self) -> Silence | None:
        return None

    def cancel(self, stages: Sequence[str]) -> None:
        submissions = self._experiment.submissions()
        for key in stages:
            if key in submissions and submissions[key].host != socket.gethostname():
                raise LaunchError(
                    f"{key} runs on {submissions[key].host}; run golf-launch cancel there"
                )
            pid = self._controller(submissions.get(key)) or self._own_process(key)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _controller(self, submission: Submission | None) -> int | None:
        """submitit's controller of a job, which hands signals on, if it lives."""
        if submission is None or not is_alive(int(submission.job_id), submission.submitted_at):
            return None
        return int(submission.job_id)

    def _own_process(self, key: str) -> int | None:
        """The process that speaks for the stage; it may outlive its controller."""
        status = read_json(self._experiment.paths.stage(key).status) or {}
        pid: int | None = status.get("pid")
        return pid if pid is not None and is_alive(pid, status["updated_at"]) else None
