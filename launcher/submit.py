"""Submit what an experiment lacks, and cancel what it runs.

Both first look how the stages stand, so that repeating a command does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from golf.records import read_json, write_json
from launcher.clock import Clock
from launcher.errors import LaunchError
from launcher.executors.base import Executor
from launcher.experiment import Experiment
from launcher.stage import Stage
from launcher.states import ACTIVE, SUBMISSION_LIMIT_S, StageStatus, State, read_status

CANCEL_LIMIT_S = 120.0
"""Writing a checkpoint takes seconds; longer than this something hangs."""


def read_statuses(
    experiment: Experiment,
    executor: Executor,
    now: float,
    submission_limit_s: float = SUBMISSION_LIMIT_S,
) -> dict[str, StageStatus]:
    """How every stage stands, by key; the executor is asked once."""
    jobs = executor.observe(now)
    paths = experiment.paths
    return {
        stage.key: read_status(paths.stage(stage.key), jobs.get(stage.key), now, submission_limit_s)
        for stage in experiment.stages
    }


def submit_missing(experiment: Experiment, executor: Executor) -> tuple[Stage, ...]:
    """Submit the stages that are neither done nor under way; returns them.

    Raises:
        LaunchError: another launcher is submitting this experiment, or the executor refused.
    """
    with experiment.locked() as lock:
        executor.adopt()
        statuses = read_statuses(experiment, executor, time.time(), submission_limit_s=0)
        missing = tuple(
            stage
            for stage in experiment.stages
            if statuses[stage.key].state not in ACTIVE | {State.DONE}
        )
        experiment.announce_submissions(missing)
        for stage in missing:
            _note(experiment, stage, State.WAITING, "submitted")
        if missing:
            _submit(experiment, executor, missing, lock)
    return missing


def _submit(experiment: Experiment, executor: Executor, stages: Sequence[Stage], lock: int) -> None:
    try:
        executor.submit(stages, lock)
    except LaunchError:
        submitted = experiment.submissions()
        for stage in stages:
            if stage.key not in submitted:
                _note(experiment, stage, State.PLANNED, "")
        raise


def cancel_and_wait(
    experiment: Experiment, executor: Executor, keys: Sequence[str], clock: Clock
) -> tuple[dict[str, StageStatus], dict[str, StageStatus]]:
    """Ask stages to stop until they have; returns how all stages stood before and after.

    A stop that arrives while a process is just starting can be lost, so it is repeated.

    Raises:
        LaunchError: another launcher is submitting, or a stage does not stop.
    """
    with experiment.locked():
        executor.adopt()
        before = after = read_statuses(experiment, executor, clock.now(), submission_limit_s=0)
        wanted = [key for key in keys if before[key].state in {*ACTIVE, State.PLANNED}]
        deadline = clock.now() + CANCEL_LIMIT_S
        while active := [key for key in wanted if after[key].state in ACTIVE]:
            if clock.now() > deadline:
                raise LaunchError(
                    f"{', '.join(active)} did not stop within {CANCEL_LIMIT_S:.0f} s; "
                    f"look with golf-launch logs {experiment.name}, and cancel again"
                )
            executor.cancel(active)
            clock.sleep(executor.cancel_every_s)
            after = read_statuses(experiment, executor, clock.now(), submission_limit_s=0)
        for key in wanted:
            if after[key].state in (State.PLANNED, State.LOST):  # it never got to say a word
                _note(experiment, experiment.stage(key), State.CANCELLED, "cancelled before it ran")
        after = read_statuses(experiment, executor, clock.now(), submission_limit_s=0)
    return before, after


def _note(experiment: Experiment, stage: Stage, state: State, reason: str) -> None:
    """The launcher's own word in a stage's status, before any process of the stage speaks."""
    path = experiment.paths.stage(stage.key).status
    now = time.time()
    before = read_json(path) or {}
    note = {
        "state": str(state),
        "reason": reason,
        "attempt": before.get("attempt", 0),
        "commands": before.get("commands", []),
        "updated_at": now,
        "ended_at": now if state is State.CANCELLED else None,
    }
    write_json(path, note)


def keys_of(
    experiment: Experiment,
    seeds: Collection[int] | None,
    variants: Collection[str] | None = None,
) -> list[str]:
    """Keys of all stages, or of those of some seeds and variants.

    Raises:
        LaunchError: a seed or a variant is none of the experiment's.
    """
    for variant in variants or ():
        experiment.runs_of(variant)
    for seed in seeds or ():
        if seed not in experiment.seeds:
            known = ", ".join(map(str, experiment.seeds))
            raise LaunchError(f"{experiment.name} has no seed {seed}; it has {known}")
    return [
        stage.key
        for stage in experiment.stages
        if (seeds is None or stage.seed in seeds)
        and (variants is None or stage.variant in variants)
    ]
