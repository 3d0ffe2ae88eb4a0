"""Ray workers that form a group, and the group that evaluates as torchrun's ranks would.

1. A placement group reserves a CPU, and on GPUs a GPU, for each rank; the actors are placed on it.
2. They form their own torch.distributed group, so that the sums have the same order as torchrun's.
3. Every request goes to all ranks at once. A call is never repeated on the same actors.
4. The first rank that dies, hangs or breaks off ends the group: the others are killed, the
   evaluation is told, and `rebuild` places a new one.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from golf.config import ConfigError
from golf.evaluate.group import GroupFacts, ReplicasLostError
from golf.evaluate.ledger import LegalityError
from golf.evaluate.ttt import Nats
from golf.records import RunError
from launcher.fanout.patience import Patience
from launcher.fanout.private_ray import missing_nodes
from launcher.fanout.rank import Home, Rank, RankSpec, Reply
from launcher.fanout.ray_settings import node_resource

PLACE_TIMEOUT_S = 120.0
MAX_CAUSE = 300
"""Characters of a cause that are kept."""
BLAME_WAIT_S = 2.0
"""How long, after a rank broke off, to wait for word which other rank's death made it do so."""


class NodesLostError(RunError):
    """A node of the job is gone; only the scheduler can give another."""


class RayWorkers:
    """Places the actors, waits for their answers and replaces them; what they do is left open."""

    rank_class: type[Rank] = Rank
    is_main = True
    """The coordinator is the one process that runs the evaluation and writes its files."""

    def __init__(
        self, spec: RankSpec, max_recoveries: int, call_timeout_s: float = math.inf
    ) -> None:
        self.spec, self.max_recoveries = spec, max_recoveries
        self.patience = Patience(call_timeout_s)
        self.num_recoveries = 0
        self._placement: PlacementGroup | None = None
        self._actors: list[Any] = []
        self._homes: list[Home] = []
        self._dead: set[int] = set()
        self._busy_s = [0.0] * spec.world_size
        self._lived_s, self._joined_at = 0.0, time.perf_counter()
        self.facts = self._start_patiently()

    # ---- what the evaluation asks for ----

    def barrier(self) -> None:
        """One process runs the evaluation: there is nobody to wait for."""

    def rebuild(self, lost: ReplicasLostError) -> None:
        self._recover_or_raise(lost)
        self._start()

    def status(self) -> dict[str, Any]:
        lived_s = self._lived_s + time.perf_counter() - self._joined_at
        workers = [
            {
                "rank": rank,
                "host": home.host,
                "pid": home.pid,
                "busy": busy_s / lived_s,
                "alive": rank not in self._dead,
            }
            for rank, (home, busy_s) in enumerate(zip(self._homes, self._busy_s, strict=False))
        ]
        return {"coordinator": os.getpid(), "workers": workers}

    def close(self) -> None:
        """End the actors and give their resources back."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._placement is not None:
            remove_placement_group(self._placement)
            self._placement = None

    # ---- within ----

    def _start_patiently(self) -> GroupFacts:
        while True:
            try:
                return self._start()
            except ReplicasLostError as lost:
                self._recover_or_raise(lost)

    def _recover_or_raise(self, lost: ReplicasLostError) -> None:
        if self.num_recoveries == self.max_recoveries:
            raise RunError(
                f"the group of workers was lost {self.num_recoveries + 1} times, lastly: {lost}; "
                "mend the cause and go on with --resume, or allow more with fanout.max_recoveries"
            ) from lost
        self.num_recoveries += 1
        self._lived_s += time.perf_counter() - self._joined_at
        self.close()

    def _start(self) -> GroupFacts:
        """Place the actors and let them meet; returns what they say of themselves."""
        spec = self.spec
        self.patience.start_anew()
        self._placement = self._reserve()
        self._actors = [
            ray.remote(self.rank_class)
            .options(
                num_cpus=1,
                num_gpus=int(spec.device == "cuda"),
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._placement, placement_group_bundle_index=rank
                ),
            )
            .remote(spec, rank)
            for rank in range(spec.world_size)
        ]
        self._homes = self._wait("home", [actor.home.remote() for actor in self._actors])
        self._dead = set()
        ((address, port),) = self._wait("open_store", [self._actors[0].open_store.remote()])
        facts = self._wait("join", [actor.join.remote(address, port) for actor in self._actors])
        same: GroupFacts = self._same(facts, "settings")
        self._joined_at = time.perf_counter()
        return same

    def _reserve(self) -> PlacementGroup:
        spec = self.spec
        bundle = {"CPU": 1.0} | ({"GPU": 1.0} if spec.device == "cuda" else {})
        per_node = spec.world_size // spec.num_nodes
        bundles = [
            bundle | ({node_resource(rank // per_node): 1.0} if spec.num_nodes > 1 else {})
            for rank in range(spec.world_size)
        ]
        placement: PlacementGroup = placement_group(bundles, strategy="PACK")
        if not placement.wait(PLACE_TIMEOUT_S):
            remove_placement_group(placement)
            if missing := missing_nodes(spec.num_nodes):
                known = {rank // per_node: home.host for rank, home in enumerate(self._homes)}
                raise NodesLostError(
                    f"lost {', '.join(known.get(node, f'node {node}') for node in missing)}, which "
                    f"did not come back within {PLACE_TIMEOUT_S:.0f} s; the evaluation goes on "
                    "from its last checkpoint when its job has nodes again"
                )
            has = ray.available_resources()  # type: ignore[no-untyped-call]
            raise RunError(
                f"Ray has no room for {self.spec.world_size} workers of {bundle}; it offers "
                f"{has}. Ask for fewer with fanout.workers, or add nodes"
            )
        return placement

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        began = time.perf_counter()
        replies: list[Reply] = self._wait(
            method, [actor.call.remote(method, *arguments) for actor in self._actors]
        )
        self.patience.learn(method, time.perf_counter() - began)
        for rank, reply in enumerate(replies):
            self._busy_s[rank] += reply.seconds
        return [reply.value for reply in replies]

    def _wait(self, call: str, refs: list[Any]) -> list[Any]:
        """The values of `refs`, all from one call; the first failure ends the wait.

        Raises:
            ReplicasLostError: an actor died or hangs, or its group broke off.
            RunError, ConfigError: what the replica itself complained of.
        RayTaskError: a mistake in its code.
        """
        waiting, limit_s = list(refs), self.patience.limit_s(call)
        deadline = time.monotonic() + limit_s
        while waiting:
            left_s = max(0.0, deadline - time.monotonic())
            ready, waiting = ray.wait(
                waiting, num_returns=1, timeout=None if math.isinf(left_s) else left_s
            )
            if not ready:
                late = ", ".join(str(refs.index(ref)) for ref in waiting)
                raise ReplicasLostError(f"hung: no {call} from worker {late} in {limit_s:.0f} s")
            try:
                ray.get(ready)
            except RayError as error:
                raise self._explain(error, refs) from error
        values: list[Any] = ray.get(refs)
        return values

    def _explain(self, error: RayError, refs: list[Any]) -> Exception:
        if isinstance(error, RayTaskError):
            cause = error.cause
            if isinstance(cause, RunError | ConfigError):
                return cause
            if not isinstance(cause, RuntimeError):  # torch and its groups raise that
                return error
        ray.wait(refs, num_returns=len(refs), timeout=BLAME_WAIT_S)
        died = {rank: who for rank, ref in enumerate(refs) if (who := self._death(rank, ref))}
        self._dead = set(died)
        dead = list(died.values())
        return ReplicasLostError("; ".join(dead) or _last_line(error))

    def _death(self, rank: int, ref: Any) -> str | None:
        """Who died on this call, if its actor did."""
        if not ray.wait([ref], timeout=0)[0]:
            return None
        try:
            ray.get(ref)
        except RayActorError as error:
            home = self._homes[rank] if rank < len(self._homes) else None
            where = f" (pid {home.pid} on {home.host})" if home else ""
            return f"worker {rank}{where} died: {_last_line(error)}"
        except RayError:
            pass
        return None

    def _same(self, values: list[Any], what: str) -> Any:
        """The one value that all ranks gave: replicas that differ would prove nothing."""
        if any(value != values[0] for value in values):
            raise LegalityError(f"the replicas of this group have different {what}: {values}")
        return values[0]


class RayGroup(RayWorkers):
    """Implements `golf.evaluate.group.Group`: all score and adapt together."""

    def score(self, windows: range) -> Nats:
        nll: Nats = self._call("score", windows)[0]
        return nll

    def adapt(self, start: int, num_rows: int, lr: float) -> int:
        steps: int = self._same(self._call("adapt", start, num_rows, lr), "steps")
        return steps

    def digest(self) -> str:
        digest: str = self._same(self._call("digest"), "weights")
        return digest

    def save(self, done: int) -> None:
        self._call("save", done)

    def restore(self, limit: int | None = None) -> int:
        trained: int = self._same(self._call("restore", limit), "checkpoints")
        return trained

    def settle(self) -> None:
        self._call("settle")


def _last_line(error: Exception) -> str:
    """The line that says most, without Ray's advice after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    line = line.partition(" Some common causes")[0]
    return line if len(line) <= MAX_CAUSE else line[: MAX_CAUSE - 1] + "…"
