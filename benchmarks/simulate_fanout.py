"""How long an evaluation of N GPUs would take under either schedule: a small event simulation.

1. Times of one worker come from published runs, from an estimate whose assumptions are printed, or
   from what `benchmarks/fanout.py --json F` measured here (`--measured F`).
2. Strict: chunk after chunk, all workers share its windows, then its rows.
3. Pipelined: those that adapt take a chunk each `adapter_chunk_s`, hand over the weights and go on
   while fewer than `run_ahead` chunks wait to be scored; a scorer takes a whole chunk.
4. Where there are fewer cores than busy workers, all of them are slowed down alike.

Run: `python benchmarks/simulate_fanout.py [--gpus 8 16 24 64] [--measured F]`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from golf.evaluate.split import (
    ChunkWork,
    Times,
    adapter_chunk_s,
    best_split,
    scorer_chunk_s,
    strict_chunk_s,
)

FINEWEB_CHUNKS = 1893
RECORD = ChunkWork(windows=512, step_rows=(16, 16, 16))
"""A chunk of 32,768 tokens: a window every 64, 16 rows of 2,048 in one batch, three epochs."""
WINDOW_FLOP = 2048 * 76.2e6
ROW_FLOP = 2048 * 240.2e6
H100_FLOPS = 989e12
"""bfloat16, dense, as NVIDIA states it for the SXM module."""
LINKS = {"digest_s": 1e-3, "reduce_s": 1.5e-3, "handover_s": 3e-3, "chunk_s": 5e-3}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Times of one H100, and where they come from."""

    name: str
    times: Times
    why: str


def published_scenarios() -> list[Scenario]:
    """From the challenge's pull requests; links and coordination are assumed, see `LINKS`."""
    steps, windows = 3 * (FINEWEB_CHUNKS - 1), FINEWEB_CHUNKS * RECORD.windows
    eager_s, compiled_s = 164.0, 72.0
    step_s = (408.0 - eager_s) / steps
    # Two rows a GPU are about 1 ms of arithmetic; the rest of a step is launches and all-reduces.
    update = LINKS | {"step_s": step_s - 1e-3, "row_s": 0.5e-3, "reduce_s": 0.0}
    return [
        Scenario(
            name="eager",
            times=Times(window_s=8 * eager_s / windows, **update),
            why="PR 549's 408 s on 8 H100s, of which about 164 s are eager scoring (published\n"
            f"  eager sliding: 155 to 168 s) and {1000 * step_s:.0f} ms each of {steps:,} SGD "
            "steps, their all-reduces included",
        ),
        Scenario(
            name="compiled scoring",
            times=Times(window_s=8 * compiled_s / windows, **update),
            why="scoring as PR 414's compiled sliding with FlashAttention-3, 70 to 74 s on 8\n"
            "  H100s; steps as PR 549's",
        ),
        Scenario(
            name="fused",
            times=Times(
                window_s=WINDOW_FLOP / (0.45 * H100_FLOPS),
                row_s=ROW_FLOP / (0.35 * H100_FLOPS),
                step_s=2.5e-3,
                **LINKS,
            ),
            why="an estimate, measured by nobody: scoring at 45% and training at 35% of\n"
            "  989 TFLOP/s (76.2 and 240.2 MFLOP a token), 2.5 ms a step for clip and update",
        ),
    ]


@dataclass
class _Pipeline:
    """The state of one simulated pipeline; all times in seconds of an undisturbed worker."""

    adapter_s: float
    scorer_s: float
    adapters: int
    num_chunks: int
    run_ahead: int
    load: dict[int, int]
    """Chunks that each scorer has or waits for, who was given one last at the end."""
    left_s: dict[int, float] = field(default_factory=dict)
    """Work left of each scorer that is busy, and of the adapters under -1."""
    given: int = 0
    waiting: int = 0
    scored: int = 0

    def begin(self) -> None:
        """Start whatever can start."""
        while -1 not in self.left_s and self.given < self.num_chunks:
            if self.waiting >= self.run_ahead:
                break
            scorer = min(self.load, key=lambda rank: self.load[rank])
            self.load[scorer] = self.load.pop(scorer) + 1
            self.given += 1
            self.waiting += 1
            if self.given < self.num_chunks:  # the last chunk is trained on by nobody
                self.left_s[-1] = self.adapter_s
        for rank, load in self.load.items():
            if load and rank not in self.left_s:
                self.left_s[rank] = self.scorer_s

    def finish(self) -> None:
        """End what is done."""
        for rank in [rank for rank, left_s in self.left_s.items() if left_s <= 1e-12]:
            del self.left_s[rank]
            if rank >= 0:
                self.load[rank] -= 1
                self.waiting -= 1
                self.scored += 1

    @property
    def num_busy(self) -> int:
        return len(self.left_s) + (self.adapters - 1 if -1 in self.left_s else 0)


def strict_s(
    times: Times, work: ChunkWork, num_chunks: int, workers: int, cores: int | None = None
) -> float:
    """A whole evaluation by the strict schedule."""
    slow = max(1.0, workers / cores) if cores else 1.0
    compute_s = strict_chunk_s(times, work, workers) - times.chunk_s
    return num_chunks * (compute_s * slow + times.chunk_s)


def pipelined_s(
    times: Times,
    work: ChunkWork,
    num_chunks: int,
    workers: int,
    adapters: int,
    *,
    run_ahead: int | None = None,
    cores: int | None = None,
) -> float:
    """A whole evaluation by the pipelined schedule."""
    scorers = workers - adapters
    pipeline = _Pipeline(
        adapter_s=adapter_chunk_s(times, work, adapters),
        scorer_s=scorer_chunk_s(times, work),
        adapters=adapters,
        num_chunks=num_chunks,
        run_ahead=run_ahead or 2 * scorers,
        load=dict.fromkeys(range(scorers), 0),
    )
    now = 0.0
    while pipeline.scored < num_chunks:
        pipeline.begin()
        rate = min(1.0, cores / pipeline.num_busy) if cores else 1.0
        step_s = min(pipeline.left_s.values())
        now += step_s / rate
        for rank in pipeline.left_s:
            pipeline.left_s[rank] -= step_s
        pipeline.finish()
    return now


def best_pipelined(
    times: Times, work: ChunkWork, num_chunks: int, workers: int
) -> tuple[float, int]:
    """Seconds and adapters of the best split: the arithmetic's, or one beside it."""
    near = best_split(times, work, workers)
    tried = [a for a in range(near - 2, near + 3) if 1 <= a < workers]
    return min((pipelined_s(times, work, num_chunks, workers, a), a) for a in tried)


def table(scenario: Scenario, gpus: list[int]) -> list[str]:
    lines = [
        f"{scenario.name}: {scenario.why}",
        f"  a window {1000 * scenario.times.window_s:.3f} ms, a step "
        f"{1000 * scenario.times.step_s:.1f} ms and {1000 * scenario.times.row_s:.2f} ms a row",
        f"  {'GPUs':>5} {'strict':>9} {'pipelined':>10}  adapt + score",
    ]
    for count in gpus:
        strict = strict_s(scenario.times, RECORD, FINEWEB_CHUNKS, count)
        piped, adapters = best_pipelined(scenario.times, RECORD, FINEWEB_CHUNKS, count)
        lines.append(
            f"  {count:>5} {strict:>7.0f} s {piped:>8.0f} s  {adapters} + {count - adapters}"
        )
    return lines


def show(gpus: list[int], measured_chunk_s: float | None = None) -> None:
    """Print all scenarios with what is assumed of them."""
    chunk_s = LINKS["chunk_s"] if measured_chunk_s is None else measured_chunk_s
    origin = "assumed" if measured_chunk_s is None else "measured here over CPU workers"
    print(
        f"Simulated: FineWeb's validation set, {FINEWEB_CHUNKS:,} chunks of {RECORD.windows} "
        f"windows and {len(RECORD.step_rows)} steps of {RECORD.step_rows[0]} rows.\n"
        f"Assumed of H100s: {1000 * LINKS['reduce_s']:.1f} ms to all-reduce 27 M gradients, "
        f"{1000 * LINKS['handover_s']:.1f} ms to hand weights over, "
        f"{1000 * LINKS['digest_s']:.1f} ms\nto digest them; coordination of a chunk "
        f"{1000 * chunk_s:.1f} ms ({origin}); equal workers, no failures, no start, no compiling."
    )
    for scenario in published_scenarios():
        times = replace(scenario.times, chunk_s=chunk_s)
        print("\n" + "\n".join(table(replace(scenario, times=times), gpus)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 16, 24, 64])
    parser.add_argument(
        "--measured", type=Path, help="JSON of benchmarks/fanout.py: coordination as measured"
    )
    arguments = parser.parse_args()
    measured = None
    if arguments.measured:
        measured = json.loads(arguments.measured.read_text())["times"]["chunk_s"]
    show(arguments.gpus, measured)


if __name__ == "__main__":
    main()
