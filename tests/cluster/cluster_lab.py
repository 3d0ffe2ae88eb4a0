"""Experiments of a few short processes on the test cluster."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import FakeClock, Lab, stage, train_and_eval
from slurm_site import SlurmSite

from golf.config import Job, JobConfig, ResourcesConfig
from launcher.executors.slurm import SlurmExecutor
from launcher.experiment import Experiment, ExperimentPaths, Registration
from launcher.profile import Profile, SiteConfig, SlurmConfig
from launcher.stage import Stage
from launcher.states import ACTIVE, TERMINAL, StageStatus, State
from launcher.submit import read_statuses
from launcher.sweep import Variant
from launcher.watch import StageView, Watcher

LIMIT_S = 90.0
SMALL = ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=1, time_minutes=10)
PROFILE = Profile(
    site=SiteConfig(executor="slurm"),
    slurm=SlurmConfig(
        partition="main",
        poll_seconds=0.3,
        slowest_poll_seconds=1.0,
        signal_seconds=30,
        max_attempts=3,
    ),
)
WAITS_FOR_STOP = """
import os, signal, sys, time
from pathlib import Path
done = Path({marker!r})
if done.exists():
    print("second time", flush=True)
    sys.exit(0)
def stop(*_):
    done.touch()
    print("checkpoint written", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("working", flush=True)
time.sleep(300)
"""
"""Works until it is stopped, and is done when it is started again."""

__all__ = ["LIMIT_S", "PROFILE", "SMALL", "WAITS_FOR_STOP", "ClusterLab", "Lab", "stage",
           "train_and_eval"]  # fmt: skip


@dataclass
class ClusterLab:
    site: SlurmSite
    runs: Path

    def register(
        self,
        stages: Sequence[Stage],
        name: str = "",
        profile: Profile = PROFILE,
        job: Job | None = None,
        variants: Sequence[Variant] = (),
    ) -> Experiment:
        """Like real ones, experiments have unique names: jobs are found by them."""
        name = name or f"test-{secrets.token_hex(4)}"
        seeds = tuple(dict.fromkeys(s.seed for s in stages if s.seed is not None))
        return Experiment.register(
            ExperimentPaths(self.runs / name),
            job or Job(job=JobConfig(name="test"), resources=SMALL),
            Registration(
                seeds=seeds,
                stages=tuple(stages),
                asked_job="test",
                executor="slurm",
                profile=profile.plain(),
                variants=tuple(variants),
            ),
        )

    def executor(self, experiment: Experiment, profile: Profile = PROFILE) -> SlurmExecutor:
        return SlurmExecutor(experiment, profile)

    def wait_for(
        self, experiment: Experiment, executor: SlurmExecutor, key: str, state: State
    ) -> StageStatus:
        deadline = time.monotonic() + LIMIT_S
        while True:
            status = self.statuses(experiment, executor)[key]
            if status.state is state:
                return status
            assert status.state not in TERMINAL, status
            assert time.monotonic() < deadline, f"waited for {key} to be {state}: {status}"
            time.sleep(0.2)

    def wait_until_over(
        self, experiment: Experiment, executor: SlurmExecutor, limit_s: float = LIMIT_S
    ) -> dict[str, StageStatus]:
        deadline = time.monotonic() + limit_s
        while True:
            statuses = self.statuses(experiment, executor)
            if not ACTIVE & {status.state for status in statuses.values()}:
                return statuses
            assert time.monotonic() < deadline, statuses
            time.sleep(0.2)

    def statuses(self, experiment: Experiment, executor: SlurmExecutor) -> dict[str, StageStatus]:
        return read_statuses(experiment, executor, time.time())

    def told_within_two_polls(
        self, experiment: Experiment, executor: SlurmExecutor, key: str
    ) -> StageView:
        """A stage as a watcher tells it at the second look, at the latest, after its job's end."""
        job_id = self.job_id(experiment, key)
        words = ("squeue", "--noheader", "--states=all", "--format=%i %T")

        def is_over() -> bool:
            lines = self.site.call(*words).stdout.splitlines()
            states = dict(line.split() for line in lines)
            return states.get(job_id, "GONE") not in ("PENDING", "RUNNING", "COMPLETING")

        self.site.wait_until(is_over, f"job {job_id} to end", LIMIT_S)
        clock = FakeClock(time.time())
        watcher = Watcher(experiment, executor, clock)
        for _ in range(2):
            view = watcher.look()
            clock.sleep(PROFILE.slurm.slowest_poll_seconds)
        return next(s for seed in view.seeds for s in seed.stages if s.key == key)

    def log(self, experiment: Experiment, key: str) -> str:
        path = experiment.paths.stage(key).log
        return path.read_text() if path.exists() else ""

    def wait_for_log(self, experiment: Experiment, key: str, text: str) -> None:
        self.site.wait_until(
            lambda: text in self.log(experiment, key).splitlines(), f"{key} to say {text!r}"
        )

    def job_id(self, experiment: Experiment, key: str) -> str:
        return experiment.submissions()[key].job_id
