"""One Ray worker of the pipelined schedule: it adapts with the others that do, or it scores.

1. All workers meet; the first of them are ranks of a group of their own, which adapts.
2. An adapter clones the weights that a chunk is to be scored with, sends them off, and trains on.
3. A scorer receives them into its model, digests what it holds, and scores in the batches of the
   adapters' ranks, so that not a bit differs from what these would have scored together.

Weights travel between the workers by torch.distributed: NCCL between GPUs, gloo between CPUs. It
writes into the scorer's own buffers, where Ray's object store would copy twice and hold the rest.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from golf.distributed import Ranks, form_part
from golf.evaluate.group import GroupFacts
from golf.evaluate.pipelined import Scored, Task, Trained
from launcher.fanout.rank import Rank, RankSpec, Reply


def source_of(scorer: int, num_adapters: int) -> int:
    """The adapter that sends weights to this rank, always the same: each has its share of them."""
    return (scorer - num_adapters) % num_adapters


class PipelinedRank(Rank):
    """The actor. Ray runs its calls one after another, in the order in which they were made."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        super().__init__(spec, rank)
        self._lines: dict[int, dist.ProcessGroup | None] = {}
        self._sending: deque[tuple[list[dist.Work], list[Tensor]]] = deque()

    def join(self, address: str, port: int) -> GroupFacts:
        """As `Rank.join`; what decides the last bits is the number of those that adapt."""
        return replace(super().join(address, port), world_size=self.spec.adapters)

    def _ranks(self, everyone: Ranks) -> Ranks:
        adapters = self.spec.adapters
        for scorer in range(adapters, everyone.world_size):
            # NCCL does a group's transfers one after another: each scorer gets a line of its own,
            # or it would wait for the slowest. Gloo's do not hinder each other.
            pair = [source_of(scorer, adapters), scorer]
            on_gpu = everyone.device.type == "cuda"
            self._lines[scorer] = dist.new_group(pair) if on_gpu else None
        return form_part(everyone, adapters)

    def advance(self, task: Task, scorer: int | None) -> Reply:
        """Adapters: hand over the weights as they are, to `scorer`, and train on the chunk."""
        assert self.group is not None
        waited_s = 0.0
        began = time.perf_counter()
        if scorer is not None and source_of(scorer, self.spec.adapters) == self.rank:
            waited_s = self._hand_over(scorer)
        trained = None
        if task.train is not None:
            steps = self.group.adapt(*task.train)
            trained = Trained(chunk=task.chunk, steps=steps, weights=self.group.digest())
            if task.save:
                self.group.save(task.chunk + 1, task.needed)
        return Reply(trained, time.perf_counter() - began - waited_s)

    def _hand_over(self, scorer: int) -> float:
        """Begin to send; returns how long older transfers held it up."""
        assert self.group is not None
        values = self.group.replica.flat.values
        began = time.perf_counter()
        snapshot = self._free_snapshot(values)
        waited_s = time.perf_counter() - began
        for copy, value in zip(snapshot, values, strict=True):
            copy.copy_(value)
        line = self._lines[scorer]
        works = [dist.isend(tensor, scorer, group=line) for tensor in snapshot]
        self._sending.append(([work for work in works if work is not None], snapshot))
        return waited_s

    def _free_snapshot(self, values: list[Tensor]) -> list[Tensor]:
        """Memory for a copy of the weights: that of a transfer that is over, or fresh."""
        if len(self._sending) < self.spec.run_ahead:
            return [torch.empty_like(value) for value in values]
        # No more chunks than these are given out at a time: the oldest has been received.
        works, snapshot = self._sending.popleft()
        for work in works:
            work.wait()
        return snapshot

    def score_chunk(self, chunk: int, windows: range) -> Reply:
        """Scorers: receive the weights for this chunk, and score it with them."""
        assert self.group is not None
        replica, spec = self.group.replica, self.spec
        source = source_of(self.rank, spec.adapters)
        with torch.no_grad():
            for values in replica.flat.values:
                dist.recv(values, source, group=self._lines[self.rank])
        began = time.perf_counter()
        weights = replica.digest()
        nll = replica.score_alone(windows, spec.adapters)
        scored = Scored(chunk=chunk, nll=nll, weights=weights)
        return Reply(scored, time.perf_counter() - began)
