"""What this machine can give: cores, memory, GPUs, disk. Asked of the kernel, without torch."""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from golf.config import ResourcesConfig

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The part of a machine that this user's processes may use."""

    num_cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    """Names as `CUDA_VISIBLE_DEVICES` takes them."""

    def cores_of(self, resources: ResourcesConfig) -> int:
        """Cores that a stage occupies: those it asks for, or more if its memory weighs more."""
        memory_per_core = self.memory_bytes / self.num_cores
        by_memory = math.ceil(resources.mem_gb * GIB / memory_per_core)
        return min(max(resources.cpus_per_task, by_memory), self.num_cores)

    def places(self, resources: ResourcesConfig) -> int:
        """How many such stages run side by side."""
        by_cores = self.num_cores // self.cores_of(resources)
        if resources.gpus_per_node == 0:
            return by_cores
        return min(by_cores, len(self.gpus) // resources.gpus_per_node)


def this_machine() -> Machine:
    """The machine as it stands, control groups and CPU affinity respected."""
    return Machine(num_cores=_num_cores(), memory_bytes=_memory_bytes(), gpus=_gpus())


def free_disk_bytes(folder: Path) -> int:
    """Free space where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _num_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        cores = min(cores or 1, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores or 1)


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def _gpus() -> tuple[str, ...]:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip())
    devices = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    count = sum(device is not None for device in devices)
    return tuple(str(index) for index in range(count))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
