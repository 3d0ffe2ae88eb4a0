"""The courses of a run that the report draws, thinned to what an eye can tell apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from golf.records import read_lines
from launcher.paths import RunPaths

MAX_POINTS = 240
MIN_POINTS = 24
ALL_POINTS = 6000
"""Of one curve over all seeds, so that the report of 200 seeds stays small."""
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Points (x, y) of one seed; empty where the run has not come so far."""

    seed: int
    loss: Points
    """Training loss by step: means of equal runs of steps."""
    lr_scale: Points
    """Learning-rate scale by step."""
    running_bpb: Points
    """BPB over all chunks so far, by chunk, of the TTT evaluation."""
    running_bpb_sliding: Points
    """The same of the sliding evaluation, which does not adapt."""
    ttt_gain: Points
    """Sliding BPB minus TTT BPB of each chunk by itself."""


def points_of(num_seeds: int) -> int:
    """Points that each seed's curve may have."""
    return max(MIN_POINTS, min(MAX_POINTS, ALL_POINTS // max(num_seeds, 1)))


def read_curves(paths: RunPaths, seed: int, count: int = MAX_POINTS) -> Curves:
    """Read a seed's metrics and ledgers; `count` points a curve at most."""
    metrics = _last_of_each_step(read_lines(paths.train(seed).metrics))
    ttt = _scores(paths.evaluation(seed, "ttt").ledger)
    sliding = _scores(paths.evaluation(seed, "sliding").journal("sliding"))
    return Curves(
        seed=seed,
        loss=means([(float(m["step"]), m["train_loss"]) for m in metrics], count),
        lr_scale=picked([(float(m["step"]), m["lr_scale"]) for m in metrics], count),
        running_bpb=picked(_running(ttt), count),
        running_bpb_sliding=picked(_running(sliding), count),
        ttt_gain=means(_gain(ttt, sliding), count),
    )


def means(points: Sequence[tuple[float, float]], count: int = MAX_POINTS) -> Points:
    """At most `count` points, each the mean of neighbours."""
    parts = min(len(points), count)
    edges = [index * len(points) // max(parts, 1) for index in range(parts + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(edges)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )


def picked(points: Sequence[tuple[float, float]], count: int = MAX_POINTS) -> Points:
    """At most `count` of the points, the first and the last among them."""
    if len(points) <= count:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(i * last / (count - 1))] for i in range(count))


def _last_of_each_step(lines: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """A resumed run may have written a step twice."""
    return [line for _, line in sorted({int(line["step"]): line for line in lines}.items())]


_ChunkScores = list[tuple[int, float, int]]
"""Chunk, nats, bytes."""


def _scores(path: Path) -> _ChunkScores:
    """In the order of the chunks: a pipelined evaluation records them as they are done."""
    lines = [line for line in read_lines(path) if line["kind"] == "score"]
    return sorted((line["chunk"], line["nll_sum"], line["bytes"]) for line in lines)


def _running(scores: _ChunkScores) -> list[tuple[float, float]]:
    points, nats, num_bytes = [], 0.0, 0
    for chunk, nll_sum, size in scores:
        nats, num_bytes = nats + nll_sum, num_bytes + size
        if num_bytes:
            points.append((chunk + 1.0, nats / math.log(2) / num_bytes))
    return points


def _gain(ttt: _ChunkScores, sliding: _ChunkScores) -> list[tuple[float, float]]:
    """Both evaluations cut the same positions into the same chunks."""
    return [
        (chunk + 1.0, (before - after) / math.log(2) / size)
        for (chunk, after, size), (_, before, other) in zip(ttt, sliding, strict=False)
        if size and size == other
    ]
