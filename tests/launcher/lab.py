"""Small experiments whose stages are real processes, and a clock that needs no time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golf.config import BudgetConfig, EvaluateConfig, Job, JobConfig, ResourcesConfig, TTTConfig
from launcher.executors.local import LocalExecutor
from launcher.experiment import Experiment, ExperimentPaths, Registration
from launcher.machine import GIB, Machine
from launcher.stage import Command, Stage
from launcher.states import ACTIVE, TERMINAL, StageStatus, State
from launcher.submit import read_statuses

SMALL = ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=1, time_minutes=5)
MACHINE = Machine(num_cores=4, memory_bytes=64 * GIB, gpus=())
DEADLINE_S = 60.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a real process, not for ever."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s for {what}"
        time.sleep(0.05)


def python(code: str, name: str = "work") -> Command:
    """A command that runs a few lines of Python."""
    return Command(name=name, argv=(sys.executable, "-c", code))


def stage(seed: int, kind: str, *commands: Command, after: Sequence[str] = ()) -> Stage:
    return Stage(
        key=f"{seed}/{kind}",
        kind=kind,
        seed=seed,
        commands=commands,
        after=tuple(after),
        resources=SMALL,
    )


def train_and_eval(seed: int, train: str, evaluate: str = "print('evaluated')") -> list[Stage]:
    """The two stages of a seed, each of one command."""
    return [
        stage(seed, "train", python(train)),
        stage(seed, "eval", python(evaluate), after=[f"{seed}/train"]),
    ]


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Lab:
    """Registers experiments in a folder of the test and looks after their processes."""

    runs: Path
    slots: Path
    experiments: list[Experiment] = field(default_factory=list)

    def register(
        self,
        stages: Sequence[Stage],
        name: str = "test-1",
        job: Job | None = None,
        policy: dict[str, Any] | None = None,
    ) -> Experiment:
        seeds = tuple(dict.fromkeys(s.seed for s in stages if s.seed is not None))
        job = job or Job(
            job=JobConfig(name="test"),
            resources=SMALL,
            budget=BudgetConfig(artifact_bytes=1000, train_seconds=60, eval_seconds=60),
            evaluate=EvaluateConfig(eval_seq_len=256),
            ttt=TTTConfig(chunk_tokens=1024),
        )
        experiment = Experiment.register(
            ExperimentPaths(self.runs / name),
            job,
            Registration(seeds=seeds, stages=tuple(stages), asked_job="test", policy=policy),
        )
        self.experiments.append(experiment)
        return experiment

    def executor(self, experiment: Experiment, machine: Machine = MACHINE) -> LocalExecutor:
        return LocalExecutor(experiment, machine, self.slots)

    def statuses(self, experiment: Experiment) -> dict[str, StageStatus]:
        return read_statuses(experiment, self.executor(experiment), time.time())

    def states(self, experiment: Experiment) -> dict[str, State]:
        return {key: status.state for key, status in self.statuses(experiment).items()}

    def wait_for(self, experiment: Experiment, key: str, state: State) -> StageStatus:
        def reached() -> bool:
            status = self.statuses(experiment)[key]
            assert status.state is state or status.state not in TERMINAL, status
            return status.state is state

        wait_until(reached, f"{key} to be {state}")
        return self.statuses(experiment)[key]

    def wait_until_over(self, experiment: Experiment) -> dict[str, State]:
        wait_until(
            lambda: not ACTIVE & set(self.states(experiment).values()), f"{experiment.name} to end"
        )
        return self.states(experiment)
