"""Who evaluates: a group of equal replicas, with what an evaluation needs of it beside scoring.

1. `Group` is what `golf.evaluate.run` asks for: the protocol's `Replicas`, checkpoints that the
   group itself writes and reads (weights never pass through the caller), and facts for the plan.
2. `LocalGroup` is this process, alone or as one of torchrun's ranks.
3. A group that can lose replicas says so by `ReplicasLostError`; it is then rebuilt, restored from
   its last checkpoint and brought up to the ledger again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from golf.checkpoints import Checkpoints
from golf.data.shards import Tokens
from golf.distributed import Ranks
from golf.evaluate.options import EvalOptions
from golf.evaluate.replica import Replica
from golf.evaluate.ttt import Nats, Replicas
from golf.evaluate.windows import plan_windows
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt
from golf.records import EvalPaths
from golf.weights import TensorFile, check_weights


class ReplicasLostError(Exception):
    """Replicas died; what they held is lost, what is recorded is not."""


@dataclass(frozen=True, kw_only=True)
class GroupFacts:
    """What decides the last bits of a score, and so belongs to the evaluation's plan."""

    attention: str
    device: str
    dtype: str
    world_size: int
    compiled: bool


class Group(Replicas, Protocol):
    """Replicas that can be saved, restored and, where they can be lost, rebuilt."""

    @property
    def facts(self) -> GroupFacts: ...

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""

    def barrier(self) -> None:
        """Wait until every process that runs this evaluation has come here."""

    def save(self, done: int) -> None:
        """Write a checkpoint of weights and momentum after `done` chunks."""

    def restore(self) -> int:
        """Load the newest checkpoint, if any; returns the chunks that it has trained on."""

    def rebuild(self, lost: ReplicasLostError) -> None:
        """Replace the group by a new one with the starting weights.

        Raises:
            RunError: it was rebuilt too often.
            ReplicasLostError: the new one died too.
        """

    def status(self) -> dict[str, Any]:
        """What `progress.json` tells of the group beside the evaluation's own fields."""


class LocalGroup:
    """This process's replica; under torchrun every rank runs the evaluation with its own."""

    def __init__(
        self, options: EvalOptions, weights: dict[str, Tensor], tokens: Tokens, ranks: Ranks
    ) -> None:
        job, self.ranks = options.job, ranks
        backend = choose_backend(ranks.device, options.dtype, options.attention)
        model = build_gpt(job.model, backend, ranks.device, options.dtype)
        check_weights(weights, {name: p.shape for name, p in model.named_parameters()})
        model.load_state_dict(weights)
        grid = plan_windows(len(tokens), job.evaluate, options.protocol)
        self.replica = Replica(model, tokens, grid, ranks, job, options.compiled)
        self.checkpoints = Checkpoints(
            EvalPaths(options.out).checkpoints, "chunk", job.ttt.keep_checkpoints
        )
        self.facts = GroupFacts(
            attention=backend.name,
            device=ranks.device.type,
            dtype=str(options.dtype).removeprefix("torch."),
            world_size=ranks.world_size,
            compiled=options.compiled,
        )

    @property
    def is_main(self) -> bool:
        return self.ranks.is_main

    def score(self, windows: range) -> Nats:
        return self.replica.score(windows)

    def adapt(self, start: int, num_rows: int, lr: float) -> int:
        return self.replica.adapt(start, num_rows, lr)

    def digest(self) -> str:
        return self.replica.digest()

    def barrier(self) -> None:
        self.ranks.barrier()

    def save(self, done: int) -> None:
        if self.is_main:
            self.checkpoints.save(done, self.replica.state(), {"trained_chunks": str(done)})

    def restore(self) -> int:
        checkpoint = self.checkpoints.load_newest()
        return 0 if checkpoint is None else self.load(checkpoint)

    def load(self, checkpoint: TensorFile) -> int:
        """Take over a checkpoint; returns the chunks that it has trained on."""
        self.replica.load_state(checkpoint.tensors)
        return int(checkpoint.metadata["trained_chunks"])

    def rebuild(self, lost: ReplicasLostError) -> None:
        raise AssertionError("one process cannot outlive its replica") from lost

    def status(self) -> dict[str, Any]:
        return {}
