"""Who evaluates: a group of equal replicas, with what an evaluation needs of it beside scoring.

1. `Workers` is what `golf.evaluate.run` asks of whoever evaluates: checkpoints that they themselves
   write and read (weights never pass through the caller), and facts for the plan.
2. `Group` are workers that score and adapt together, the protocol's `Replicas`. Those of which some
   score while others adapt are a `golf.evaluate.pipelined.Pipeline`.
3. `LocalGroup` is this process, alone or as one of torchrun's ranks.
4. Workers that can be lost say so by `ReplicasLostError`; they are then rebuilt, restored from
   their last checkpoint and brought up to the ledger again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from golf.checkpoints import Checkpoints, CheckpointWriter
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


class Workers(Protocol):
    """Replicas that can be restored and, where they can be lost, rebuilt."""

    @property
    def facts(self) -> GroupFacts: ...

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""

    def digest(self) -> str:
        """Digest of the weights of those that adapt."""

    def barrier(self) -> None:
        """Wait until every process that runs this evaluation has come here."""

    def restore(self, limit: int | None = None) -> int:
        """Load the newest checkpoint, if any, of at most `limit` chunks.

        Returns the chunks that it has trained on.
        """

    def settle(self) -> None:
        """Wait until every checkpoint that was begun is on disk."""

    def rebuild(self, lost: ReplicasLostError) -> None:
        """Replace the group by a new one with the starting weights.

        Raises:
            RunError: it was rebuilt too often.
            ReplicasLostError: the new one died too.
        """

    def status(self) -> dict[str, Any]:
        """What `progress.json` tells of the group beside the evaluation's own fields."""


class Group(Workers, Replicas, Protocol):
    """Workers that score and adapt together."""

    def save(self, done: int) -> None:
        """Begin to write a checkpoint of weights and momentum after `done` chunks."""


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
        self.writer = CheckpointWriter(self.checkpoints)
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

    def save(self, done: int, needed: int | None = None) -> None:
        """As `Group.save`; the newest checkpoint after at most `needed` chunks is kept too."""
        if self.is_main:
            told = {"trained_chunks": str(done)}
            self.writer.save(done, self.replica.state(), told, needed)

    def restore(self, limit: int | None = None) -> int:
        self.settle()
        checkpoints = self.checkpoints
        found = checkpoints.load_newest() if limit is None else checkpoints.load_before(limit)
        return 0 if found is None else self.load(found)

    def settle(self) -> None:
        self.writer.settle()

    def load(self, checkpoint: TensorFile) -> int:
        """Take over a checkpoint; returns the chunks that it has trained on."""
        self.replica.load_state(checkpoint.tensors)
        return int(checkpoint.metadata["trained_chunks"])

    def rebuild(self, lost: ReplicasLostError) -> None:
        raise AssertionError("one process cannot outlive its replica") from lost

    def status(self) -> dict[str, Any]:
        return {}
