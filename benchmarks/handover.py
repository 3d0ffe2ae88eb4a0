"""What it takes to hand weights from one worker to another: torch.distributed against Ray's store.

1. Two processes over gloo: the sender copies and goes on (`isend`), the other receives into its own
   buffer; also an all-reduce.
2. Two Ray actors: `ray.put` in one, `ray.get` and a copy into the own buffer in the other.

Both are timed from end to end, and for how long they hold the sender up, whose training waits.
Between GPUs the first is NCCL's, from device to device; the store would go through the host.
Medians of a few transfers of as many float32 as the record model has parameters, or `--floats N`.
Run: `python benchmarks/handover.py`.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

RECORD_FLOATS = 26_993_756
REPEATS = 5


def measure_gloo(num_floats: int) -> dict[str, float]:
    """Median seconds of a hand-over and of an all-reduce between two processes."""
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    with tempfile.TemporaryDirectory() as folder:
        given = (num_floats, f"{folder}/meeting", queue)
        pair = [spawn.Process(target=_gloo_rank, args=(rank, *given)) for rank in (0, 1)]
        for process in pair:
            process.start()
        found: dict[str, float] = queue.get(timeout=300)
        for process in pair:
            process.join()
    return found


def _gloo_rank(rank: int, num_floats: int, meeting: str, queue: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(meeting, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    tensor = torch.zeros(num_floats)

    held: list[float] = []
    snapshot = torch.zeros(num_floats)  # workers keep theirs, too: fresh memory costs more

    def hand_over() -> None:
        if rank == 0:
            began = time.perf_counter()
            work = dist.isend(snapshot.copy_(tensor), 1)
            held.append(time.perf_counter() - began)
            work.wait()
        else:
            dist.recv(tensor, 0)
        dist.barrier()

    found = {
        "send_s": _median(hand_over),
        "send_held_s": statistics.median(held) if held else 0.0,
        "all_reduce_s": _median(lambda: dist.all_reduce(tensor)),
    }
    if rank == 0:
        queue.put(found)
    dist.destroy_process_group()


def measure_ray(num_floats: int) -> dict[str, float]:
    """Median seconds from the sender's weights to the receiver's buffer, through the store."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="golf-ray-") as folder:
        ray.init(
            "local",
            num_cpus=2,
            object_store_memory=max(8 * num_floats * 4, 1 << 28),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        try:
            sender, receiver = (ray.remote(_Holder).remote(num_floats) for _ in range(2))

            held = []

            def hand_over() -> None:
                ref, held_s = ray.get(sender.put.remote())
                held.append(held_s)
                ray.get(receiver.take.remote([ref]))

            whole_s = _median(hand_over)
            return {"store_s": whole_s, "store_held_s": statistics.median(held)}
        finally:
            ray.shutdown()


class _Holder:
    """A Ray actor that holds weights."""

    def __init__(self, num_floats: int) -> None:
        torch.set_num_threads(1)
        self.weights = torch.zeros(num_floats)

    def put(self) -> tuple[Any, float]:
        import ray

        began = time.perf_counter()
        ref = ray.put(self.weights.numpy())
        return ref, time.perf_counter() - began

    def take(self, refs: list[Any]) -> None:
        import ray

        array = ray.get(refs[0])
        self.weights.numpy()[:] = array


def _median(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def show(num_floats: int, found: dict[str, float]) -> None:
    print(
        f"weights of {4 * num_floats / 1e6:.1f} MB from worker to worker: gloo "
        f"{1000 * found['send_s']:.1f} ms (sender held up {1000 * found['send_held_s']:.1f}), "
        f"Ray's store {1000 * found['store_s']:.1f} ms ({1000 * found['store_held_s']:.1f});\n"
        f"  all-reduce of two {1000 * found['all_reduce_s']:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--floats", type=int, default=RECORD_FLOATS)
    count = parser.parse_args().floats
    show(count, measure_gloo(count) | measure_ray(count))


if __name__ == "__main__":
    main()
