"""One Ray worker: one rank of the group, as torchrun would have started it.

1. Rank 0 opens a store on a free port of its node; all ranks meet there and form their group.
2. Each reads data and weights by itself, so that no weights pass through Ray.
3. From then on it does what the coordinator asks, always the same on all ranks.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from torch._C._distributed_c10d import TCPStore

from golf.distributed import Ranks, form_group, local_device
from golf.evaluate.group import GroupFacts, LocalGroup
from golf.evaluate.options import EvalOptions
from golf.evaluate.validation import ValidationSet
from golf.records import DataPaths
from golf.weights import load_weights
from launcher.fanout.place import interface_of, node_name

MEET_TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class RankSpec:
    """What every rank is made from; the paths must be the same on all nodes."""

    options: EvalOptions
    data: DataPaths
    tokenizer: Path | None
    weights: Path
    device: str
    world_size: int
    num_threads: int
    num_nodes: int = 1
    """Nodes over which the ranks are spread, in their order."""
    adapters: int = 0
    """Under the pipelined schedule, the leading ranks that adapt; the others score."""
    run_ahead: int = 0
    """Under the pipelined schedule, chunks that may be given out from the first unscored one on."""

    def load_validation(self) -> ValidationSet:
        return ValidationSet.load(self.data, self.options.job.model.vocab_size, self.tokenizer)


class Reply(NamedTuple):
    """A call's value and how long the rank worked on it."""

    value: Any
    seconds: float


class Home(NamedTuple):
    """Where a rank lives."""

    host: str
    pid: int


class Rank:
    """The actor. Ray runs its calls one after another, in the order in which they were made."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        self.spec, self.rank = spec, rank
        self.store: TCPStore | None = None
        self.group: LocalGroup | None = None

    def home(self) -> Home:
        return Home(node_name(), os.getpid())

    def open_store(self) -> tuple[str, int]:
        """Rank 0: open the store at which all meet; returns its address and port."""
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self.store = TCPStore(
            address, 0, is_master=True, wait_for_workers=False, timeout=MEET_TIMEOUT
        )
        return address, self.store.port

    def join(self, address: str, port: int) -> GroupFacts:
        """Meet the other ranks and load the model."""
        spec = self.spec
        torch.set_num_threads(spec.num_threads)
        ranks = self._ranks(self._meet(address, port))
        weights = load_weights(spec.weights, spec.options.job.model)
        tokens = spec.load_validation().tokens
        self.group = LocalGroup(spec.options, weights, tokens, ranks)
        return self.group.facts

    def _meet(self, address: str, port: int) -> Ranks:
        spec = self.spec
        # Ray shows each worker its own GPU only.
        device = local_device(spec.device)
        if spec.world_size == 1:
            return Ranks(0, 1, device)
        if spec.num_nodes > 1:
            _use_the_nodes_interface()
        if self.store is None:
            self.store = TCPStore(address, port, timeout=MEET_TIMEOUT)
        return form_group(self.rank, spec.world_size, device, self.store)

    def _ranks(self, everyone: Ranks) -> Ranks:
        """With whom this rank scores and adapts."""
        return everyone

    def call(self, method: str, *arguments: Any) -> Reply:
        """Do one thing together with all ranks. All come to the same scores: one hands them out."""
        assert self.group is not None
        began = time.perf_counter()
        value = getattr(self.group, method)(*arguments)
        if method == "score" and self.rank > 0:
            value = None
        return Reply(value, time.perf_counter() - began)


def _use_the_nodes_interface() -> None:
    """Have gloo offer the address by which Ray's nodes reach each other.

    By itself it takes what the host's own name stands for, on many systems a loopback address.
    """
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    name = interface_of(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
