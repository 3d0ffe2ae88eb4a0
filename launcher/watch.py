"""Look at a whole experiment, again and again.

1. Ask the executor about all jobs at once and judge every stage by its evidence.
2. Read on in the metrics of the runs that train, and the progress of those that are evaluated.
3. Give one `View`, from which dashboard, plain lines and JSON events are made.

The clock is injected; nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from golf.records import read_json
from launcher.attempts import Attempt, read_attempts
from launcher.clock import Clock
from launcher.executors.base import Executor, Silence
from launcher.experiment import Experiment, Runs
from launcher.job_output import job_outputs
from launcher.progress import Progress, TrainProgress, eval_progress
from launcher.stage import Stage
from launcher.states import ACTIVE, BAD, StageStatus, State, run_state
from launcher.submit import read_statuses
from launcher.tails import tail_lines

POLL_S = 1.0
"""Local files cost nothing to read; a scheduler is asked more rarely."""
LOG_TAIL_LINES = 8
WRONG = frozenset({State.FAILED, State.LOST, State.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage as seen now."""

    key: str
    kind: str
    seed: int | None = None
    """None where it serves all seeds."""
    status: StageStatus
    log: Path
    log_tail: tuple[str, ...] = ()
    """Filled where the stage went wrong or was cancelled."""
    attempts: tuple[Attempt, ...] = ()
    """As its jobs noted them, where they may be put back into a queue."""

    @property
    def num_attempts(self) -> int:
        """Starts of its jobs, those included that never came to run the stage."""
        return max(self.status.attempt, len(self.attempts))


@dataclass(frozen=True, kw_only=True)
class SeedView:
    """The run of one seed, of a sweep with one variant."""

    seed: int
    variant: str = ""
    state: State
    stage: StageView
    """The stage that is under way, went wrong, or ended last."""
    stages: tuple[StageView, ...]
    progress: Progress
    elapsed_s: float | None = None
    final_loss: float | None = None
    final_bpb: float | None = None
    """TTT's figures, once the seed is done."""

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.variant} {self.seed}" if self.variant else str(self.seed)


@dataclass(frozen=True, kw_only=True)
class View:
    """An experiment as seen now."""

    root: Path
    now: float
    created_at: float
    prepare: StageView | None
    seeds: tuple[SeedView, ...]
    silence: Silence | None = None
    """Why states may be old."""

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def stages(self) -> tuple[StageView, ...]:
        """Every stage once, also one that several variants share."""
        first = () if self.prepare is None else (self.prepare,)
        stages = (*first, *(stage for seed in self.seeds for stage in seed.stages))
        return tuple({stage.key: stage for stage in stages}.values())

    @property
    def is_over(self) -> bool:
        """Nothing runs and nothing waits."""
        return not any(stage.status.state in ACTIVE for stage in self.stages)

    def count(self, state: State) -> int:
        return sum(seed.state is state for seed in self.seeds)


class Watcher:
    """Looks at one experiment; keeps its place in the files that grow."""

    def __init__(self, experiment: Experiment, executor: Executor, clock: Clock) -> None:
        self._experiment = experiment
        self._executor = executor
        self._clock = clock
        self._training = {
            (runs.variant, seed): TrainProgress(runs.paths.train(seed), runs.job().schedule)
            for runs in experiment.runs
            for seed in runs.seeds
        }

    def views(self) -> Iterator[View]:
        """Look until nothing runs or waits any more; the last view is the final one."""
        while True:
            view = self.look()
            yield view
            if view.is_over:
                return
            self._clock.sleep(POLL_S)

    def look(self) -> View:
        now = self._clock.now()
        statuses = read_statuses(self._experiment, self._executor, now)
        prepare = [self._stage(s, statuses) for s in self._experiment.shared_stages]
        return View(
            root=self._experiment.paths.root,
            now=now,
            created_at=self._experiment.created_at,
            prepare=prepare[0] if prepare else None,
            seeds=tuple(
                self._seed(runs, seed, statuses, now)
                for runs in self._experiment.runs
                for seed in runs.seeds
            ),
            silence=self._executor.silence(),
        )

    def _stage(self, stage: Stage, statuses: dict[str, StageStatus]) -> StageView:
        paths = self._experiment.paths.stage(stage.key)
        status = statuses[stage.key]
        return StageView(
            key=stage.key,
            kind=stage.kind,
            seed=stage.seed,
            status=status,
            log=paths.log,
            log_tail=self._log_tail(stage.key) if status.state in WRONG else (),
            attempts=read_attempts(paths),
        )

    def _log_tail(self, key: str) -> tuple[str, ...]:
        """The end of the stage's log, or of its job's output where the stage never began."""
        log = self._experiment.paths.stage(key).log
        logs = [log] if log.exists() else job_outputs(self._experiment, key)
        return tuple(tail_lines(logs[-1], LOG_TAIL_LINES)) if logs else ()

    def _seed(
        self, runs: Runs, seed: int, statuses: dict[str, StageStatus], now: float
    ) -> SeedView:
        stages = tuple(self._stage(s, statuses) for s in runs.stages_of(seed))
        current = next((s for s in stages if s.status.state is not State.DONE), stages[-1])
        state = run_state(stage.status.state for stage in stages)
        began = [s.status.started_at for s in stages if s.status.started_at is not None]
        ended = current.status.ended_at if state in BAD | {State.DONE} else now
        ttt = runs.paths.evaluation(seed, "ttt")
        result = (read_json(ttt.result) or {}) if state is State.DONE else {}
        return SeedView(
            seed=seed,
            variant=runs.variant,
            state=state,
            stage=current,
            stages=stages,
            progress=self._progress(runs, seed, current),
            elapsed_s=max(0.0, (ended or now) - min(began)) if began else None,
            final_loss=result.get("val_loss"),
            final_bpb=result.get("val_bpb"),
        )

    def _progress(self, runs: Runs, seed: int, stage: StageView) -> Progress:
        training = self._training[runs.variant, seed].look()
        command = stage.status.command
        if stage.status.state is not State.RUNNING or command in (None, "train"):
            return training
        paths = runs.paths
        if command == "roundtrip":
            return eval_progress(paths.round_trip(seed))
        if stage.kind == "eval" and command is not None:
            return eval_progress(paths.evaluation(seed, command))
        return Progress()
