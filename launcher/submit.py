"""Submit what an experiment lacks, and cancel what it runs.

Both first look how the stages stand, so that repeating a command does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from golf.records import read_json, write_json
from launcher.executors.base import Executor
from launcher.experiment import Experiment
from launcher.stage import Stage
from launcher.states import ACTIVE, StageStatus, State, read_status


def read_statuses(experiment: Experiment, executor: Executor, now: float) -> dict[str, StageStatus]:
    """How every stage stands, by key; the executor is asked once."""
    submissions = experiment.submissions()
    jobs = executor.observe(list(submissions.values()), now)
    return {
        stage.key: read_status(experiment.paths.stage(stage.key), jobs.get(stage.key), now)
        for stage in experiment.stages
    }


def submit_missing(experiment: Experiment, executor: Executor) -> tuple[Stage, ...]:
    """Submit the stages that are neither done nor under way; returns them.

    Raises:
        LaunchError: another launcher is submitting this experiment, or the executor refused.
    """
    with experiment.locked() as lock:
        statuses = read_statuses(experiment, executor, time.time())
        missing = tuple(
            stage
            for stage in experiment.stages
            if statuses[stage.key].state not in ACTIVE | {State.DONE}
        )
        experiment.announce_submissions(missing)
        for stage in missing:
            _note(experiment, stage, State.WAITING, "submitted")
        if missing:
            executor.submit(missing, lock)
    return missing


def cancel_stages(
    experiment: Experiment, executor: Executor, stages: Collection[str]
) -> dict[str, StageStatus]:
    """Ask the named stages that are under way to stop; returns how they stood before.

    Raises:
        LaunchError: another launcher is submitting this experiment.
    """
    with experiment.locked():
        statuses = read_statuses(experiment, executor, time.time())
        submissions = experiment.submissions()
        active = [key for key in stages if statuses[key].state in ACTIVE]
        executor.cancel([submissions[key] for key in active if key in submissions])
        for stage in experiment.stages:
            if stage.key in stages and statuses[stage.key].state is State.PLANNED:
                _note(experiment, stage, State.CANCELLED, "cancelled before it was submitted")
    return {key: statuses[key] for key in stages}


def _note(experiment: Experiment, stage: Stage, state: State, reason: str) -> None:
    """The launcher's own word in a stage's status, before any process of the stage speaks."""
    path = experiment.paths.stage(stage.key).status
    now = time.time()
    note = {
        "state": str(state),
        "reason": reason,
        "attempt": (read_json(path) or {}).get("attempt", 0),
        "updated_at": now,
        "ended_at": now if state is State.CANCELLED else None,
    }
    write_json(path, note)


def keys_of(stages: Sequence[Stage], seeds: Collection[int] | None) -> list[str]:
    """Keys of all stages, or of those of some seeds."""
    return [stage.key for stage in stages if seeds is None or stage.seed in seeds]
