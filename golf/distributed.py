"""The ranks of one run: torchrun's processes, those that met at a store, or just this one.

Tensors are reduced by NCCL between GPUs and by gloo between CPUs. A second gloo group carries what
ranks must agree on (the clock, a request to stop), so that agreeing never waits for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

from golf.config import NUM_SPANS, ConfigError


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of a run."""

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    """The gloo group of host-side agreement; None alone."""
    group: dist.ProcessGroup | None = None
    """Over whom `sum` sums; None is every process that met."""

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    def sum(self, *tensors: Tensor) -> None:
        """Add each tensor up over all ranks, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.group)

    def agree(self, *values: float) -> list[float]:
        """Sums over all ranks of host-side numbers, the same on every rank."""
        if self.control is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control)
        return [float(v) for v in tensor]

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        if self.control is not None:
            dist.barrier(group=self.control)


@contextmanager
def join_ranks(device: str | None = None) -> Iterator[Ranks]:
    """Join the ranks that torchrun started, or be the only one.

    `device` is `cpu`, `cuda` or None for the best.

    Raises:
        ConfigError: no such device here, or a number of ranks that does not divide a step's spans.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if NUM_SPANS % world_size:
        raise ConfigError(
            f"{world_size} ranks do not divide the {NUM_SPANS} spans of a step; use 1, 2, 4 or 8"
        )
    local = local_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world_size == 1:
        yield Ranks(rank, world_size, local)
        return
    try:
        yield form_group(rank, world_size, local)
    finally:
        dist.destroy_process_group()


def local_device(kind: str | None, index: int = 0) -> torch.device:
    """This process's device: `cpu`, the `index`-th `cuda`, or with None the best there is.

    Raises:
        ConfigError: no such device here.
    """
    kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"--device {kind!r} must be cpu or cuda")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no CUDA device here; use --device cpu")
    local = torch.device("cuda", index)
    torch.cuda.set_device(local)
    return local


def form_group(
    rank: int, world_size: int, device: torch.device, store: Store | None = None
) -> Ranks:
    """Make this process one of `world_size` that meet at `store`, or where torchrun says."""
    on_gpu = device.type == "cuda"
    place: dict[str, Any] = (
        {} if store is None else {"store": store, "rank": rank, "world_size": world_size}
    )
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", device_id=device if on_gpu else None, **place
    )
    return Ranks(rank, world_size, device, dist.new_group(backend="gloo"))


def form_part(everyone: Ranks, size: int) -> Ranks:
    """The first `size` of `everyone` as ranks of their own; the others come back alone.

    Everyone must call it.
    """
    alone = Ranks(0, 1, everyone.device)
    if size == 1:
        return alone
    members = list(range(size))
    group, control = dist.new_group(members), dist.new_group(members, backend="gloo")
    if everyone.rank >= size:
        return alone
    return Ranks(everyone.rank, size, everyone.device, control, group)
