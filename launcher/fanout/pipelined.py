"""The group of Ray workers of which some adapt and run ahead, and the others score.

1. Each task goes to all adapters, in the order of the chunks, and to the scorer that has the least
   to do; nobody is waited for until an outcome is asked for.
2. Chunks are given out so far beyond the first unscored one, so adapters cannot run away.
3. Nobody can wait for another in a circle: adapters send without waiting, scorers wait for weights
   that an adapter was told to send before.

Failures are those of every group of Ray workers: all of them are replaced.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from golf.config import ConfigError
from golf.distributed import local_device
from golf.evaluate.group import GroupFacts, ReplicasLostError
from golf.evaluate.pipelined import Scored, Task, Trained
from golf.evaluate.probe import probe
from golf.evaluate.split import ChunkWork, Times, best_split
from golf.records import EvalPaths, RunError, read_json
from launcher.fanout.group import RayWorkers
from launcher.fanout.pipelined_rank import PipelinedRank
from launcher.fanout.rank import RankSpec, Reply

CHUNKS_PER_SCORER = 2
"""One that it scores, and one whose weights wait for it."""


class PipelinedGroup(RayWorkers):
    """Implements `golf.evaluate.pipelined.Pipeline` over Ray actors."""

    rank_class = PipelinedRank

    def __init__(
        self, spec: RankSpec, max_recoveries: int, call_timeout_s: float = math.inf
    ) -> None:
        self.adapters, self.run_ahead = spec.adapters, spec.run_ahead
        self._pending: dict[Any, int] = {}
        self._load: dict[int, int] = {}
        self._trained: dict[int, list[Trained]] = {}
        self._outcomes: deque[Trained | Scored] = deque()
        self._at: list[int | None] = []
        self._ended: dict[str, float] = {}
        """When the last call of each kind came back."""
        super().__init__(spec, max_recoveries, call_timeout_s)

    @property
    def num_scorers(self) -> int:
        return self.spec.world_size - self.adapters

    def submit(self, task: Task) -> None:
        scorer = None
        if task.windows is not None:
            scorer = min(self._load, key=lambda rank: self._load[rank])
            # Last in line from now on: of two as busy, who was given a chunk first ends first.
            self._load[scorer] = self._load.pop(scorer) + 1
        for rank in range(self.adapters):
            self._pending[self._actors[rank].advance.remote(task, scorer)] = rank
        if scorer is not None:
            ref = self._actors[scorer].score_chunk.remote(task.chunk, task.windows)
            self._pending[ref] = scorer

    def collect(self) -> Trained | Scored:
        while not self._outcomes:
            ready = self._next()
            rank = self._pending.pop(ready)
            try:
                reply: Reply = ray.get(ready)
            except RayError as error:
                raise self._explain(error, [a.home.remote() for a in self._actors]) from error
            self._busy_s[rank] += reply.seconds
            self._take(rank, reply.value)
        return self._outcomes.popleft()

    def digest(self) -> str:
        digest: str = self._same(self._ask_adapters("digest"), "weights")
        return digest

    def restore(self, limit: int | None = None) -> int:
        trained: int = self._same(self._ask_adapters("restore", limit), "checkpoints")
        return trained

    def settle(self) -> None:
        self._ask_adapters("settle")

    def status(self) -> dict[str, Any]:
        status = super().status()
        for worker in status["workers"]:
            worker["role"] = "adapter" if worker["rank"] < self.adapters else "scorer"
            worker["chunk"] = self._at[worker["rank"]]
        return status

    # ---- within ----

    def _start(self) -> GroupFacts:
        self._pending, self._trained = {}, {}
        self._outcomes.clear()
        self._load = dict.fromkeys(range(self.adapters, self.spec.world_size), 0)
        self._at = [None] * self.spec.world_size
        self._ended.clear()
        return super()._start()

    def _next(self) -> Any:
        """The next call that ended. Who hangs soon stops all, as no one runs far ahead."""
        kinds = {self._kind(rank) for rank in self._pending.values()}
        limit_s = max(self.patience.limit_s(kind) for kind in kinds)
        ready, late = ray.wait(
            list(self._pending), num_returns=1, timeout=None if math.isinf(limit_s) else limit_s
        )
        if not ready:
            ranks = ", ".join(map(str, sorted({self._pending[ref] for ref in late})))
            raise ReplicasLostError(f"hung: nothing from workers {ranks} in {limit_s:.0f} s")
        kind, now = self._kind(self._pending[ready[0]]), time.perf_counter()
        self.patience.learn(kind, now - self._ended.get(kind, self._joined_at))
        self._ended[kind] = now
        return ready[0]

    def _kind(self, rank: int) -> str:
        """Training and scoring may take very different times: each has its own limit."""
        return "advance" if rank < self.adapters else "score_chunk"

    def _take(self, rank: int, value: Trained | Scored | None) -> None:
        if value is None:  # the last chunk is handed over, and trained on by nobody
            return
        self._at[rank] = value.chunk
        if isinstance(value, Scored):
            self._load[rank] -= 1
            self._outcomes.append(value)
            return
        together = self._trained.setdefault(value.chunk, [])
        together.append(value)
        if len(together) == self.adapters:
            self._outcomes.append(self._same(self._trained.pop(value.chunk), "weights"))

    def _ask_adapters(self, method: str, *arguments: Any) -> list[Any]:
        actors = self._actors[: self.adapters]
        replies = self._wait(method, [actor.call.remote(method, *arguments) for actor in actors])
        return [reply.value for reply in replies]


def split_workers(spec: RankSpec) -> tuple[int, str]:
    """How many workers are to adapt, and why, once Ray is up.

    Raises:
        ConfigError: they cannot be split so.
    """
    if spec.world_size < 2:
        raise ConfigError(
            "ttt.schedule='pipelined' needs two workers or more, one to adapt and one to score: "
            "--set fanout.workers=2, or --set ttt.schedule=strict"
        )
    adapters, why = _choose(spec)
    if not adapters < spec.world_size:
        raise ConfigError(
            f"{adapters} adapters ({why}) of {spec.world_size} workers leave nobody to score; set "
            f"fanout.workers to {adapters + 1} or more"
        )
    return adapters, why


def run_ahead_of(spec: RankSpec, adapters: int) -> int:
    """Chunks that may be given out from the first unscored one on."""
    return spec.options.job.fanout.run_ahead or CHUNKS_PER_SCORER * (spec.world_size - adapters)


def _choose(spec: RankSpec) -> tuple[int, str]:
    asked = spec.options.job.fanout.adapters
    if asked:
        return asked, "fanout.adapters"
    begun = read_json(EvalPaths(spec.options.out).plan) or {}
    if begun.get("schedule") == "pipelined":
        return int(begun["world_size"]), "as it was begun"
    times, work = _measure_one_worker(spec), ChunkWork.of(spec.options.job)
    steps = len(work.step_rows)
    why = (
        f"a window takes {1000 * times.window_s:.3g} ms, a step {1000 * times.step_s:.3g} ms and "
        f"{1000 * times.row_s:.3g} ms a row; {work.windows} windows and {steps} steps a chunk"
    )
    return best_split(times, work, spec.world_size), why


def _measure_one_worker(spec: RankSpec) -> Times:
    """By a task of its own, which gives its device back."""
    place = ray.remote(num_cpus=1, num_gpus=int(spec.device == "cuda"), max_calls=1)
    try:
        times: Times = ray.get(place(_measure).remote(spec))
    except RayTaskError as error:
        if isinstance(error.cause, RunError | ConfigError):
            raise error.cause from error
        raise
    return times


def _measure(spec: RankSpec) -> Times:
    torch.set_num_threads(spec.num_threads)
    return probe(spec.options, local_device(spec.device))
