"""Stages grouped into Slurm jobs: one each, or an array where there are many of a kind.

A batch is one sbatch. The tasks of an array share what they wait for: nothing, the same jobs, or
each the task of the same number of one other array. Stages for which that does not hold, as when
an experiment lacks only some of them, are jobs of their own.

A batch's name holds the experiment's unique name, so that a job whose submission
was never recorded is found again in the queue. It is written down before it is submitted:

    jobs/train-1337.json    {"name": "smoke-...:train-1337", "keys": ["1337/train"]}
    jobs/train.json         {"name": "smoke-...:train", "keys": ["1/train", "2/train", ...]}
    jobs/eval-lr=0.01-1337.json, of a sweep
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from golf.config import ResourcesConfig
from golf.records import read_json, write_json
from launcher.experiment import ExperimentPaths
from launcher.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Stages that one sbatch submits."""

    name: str
    """Of the job, as `squeue` shows it."""
    label: str
    """Of its files in `jobs/`."""
    stages: tuple[Stage, ...]

    @property
    def is_array(self) -> bool:
        return len(self.stages) > 1

    def task_id(self, job_id: str, index: int) -> str:
        """A stage's own job id."""
        return f"{job_id}_{index}" if self.is_array else job_id


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stage is or will be in the queue, to tell which stages stand alike."""

    job: str
    """A job id, or the label of a batch that is not submitted yet."""
    index: int | None = None
    """Its task in an array."""

    @classmethod
    def of(cls, job_id: str) -> Place:
        job, _, index = job_id.partition("_")
        return cls(job=job, index=int(index) if index else None)


def make_batches(
    paths: ExperimentPaths,
    stages: Sequence[Stage],
    array_from: int,
    max_array: int,
    under_way: Mapping[str, str] | None = None,
) -> tuple[Batch, ...]:
    """Group stages of one kind, those that others wait for first.

    `array_from` stages of a kind or more are arrays of at most `max_array` tasks. `under_way` are
    the job ids of earlier stages that have not ended.
    """
    places = {key: Place.of(job_id) for key, job_id in (under_way or {}).items()}
    batches: list[Batch] = []
    taken: set[str] = set()
    for members in _by_kind(stages):
        for part in _parts(members, array_from, max_array, places):
            label = _label(part)
            free = _free_label(paths.jobs, label, taken)
            taken.add(free)
            name = f"{paths.root.name}:{free}"
            batch = Batch(name=name, label=free, stages=tuple(part))
            batches.append(batch)
            for index, stage in enumerate(part):
                places[stage.key] = Place(job=free, index=index if batch.is_array else None)
    return tuple(batches)


def _by_kind(stages: Sequence[Stage]) -> list[list[Stage]]:
    """A sweep may give its variants different resources, and the tasks of an array have one."""
    kinds: dict[tuple[str, ResourcesConfig], list[Stage]] = {}
    for stage in stages:
        kinds.setdefault((stage.kind, stage.resources), []).append(stage)
    return list(kinds.values())


def _parts(
    members: Sequence[Stage], array_from: int, max_array: int, places: Mapping[str, Place]
) -> list[list[Stage]]:
    """Stages of one kind, cut into those that can be one array, and single ones.

    Of those that wait for the same task, as variants that share their training do, the first of
    each stand together, then the second, and so on.
    """
    alike: dict[tuple[object, ...], list[Stage]] = {}
    before: Counter[tuple[Place, ...]] = Counter()
    for stage in members:
        waits = tuple(places[key] for key in stage.after if key in places)
        jobs = tuple(sorted((place.job, place.index is not None) for place in waits))
        number = before[waits] if any(place.index is not None for place in waits) else 0
        before[waits] += 1
        alike.setdefault((jobs, number), []).append(stage)
    parts: list[list[Stage]] = []
    for group in alike.values():
        for start in range(0, len(group), max(1, max_array)):
            part = group[start : start + max(1, max_array)]
            array = len(group) >= array_from and len(part) > 1 and _can_be_array(part, places)
            parts += [part] if array else [[stage] for stage in part]
    return parts


def _label(stages: Sequence[Stage]) -> str:
    """`eval-1337`, of a sweep `eval-lr=0.01-1337`; of an array the kind, and its variant if one."""
    first = stages[0]
    variants = {stage.variant for stage in stages}
    words = [first.kind, *sorted(variants)] if len(variants) == 1 else [first.kind]
    if len(stages) == 1 and first.seed is not None:
        words.append(str(first.seed))
    return "-".join(filter(None, words))


def _can_be_array(part: Sequence[Stage], places: Mapping[str, Place]) -> bool:
    """Whether each task waits for the task of its own number, wherever it waits for a task."""
    return all(
        places[key].index in (None, index)
        for index, stage in enumerate(part)
        for key in stage.after
        if key in places
    )


def _free_label(folder: Path, label: str, taken: set[str]) -> str:
    """The label, numbered where an earlier submission has it."""
    number, candidate = 1, label
    while candidate in taken or (folder / f"{candidate}.json").exists():
        number += 1
        candidate = f"{label}.{number}"
    return candidate


def write_batch(folder: Path, batch: Batch) -> None:
    keys = [stage.key for stage in batch.stages]
    write_json(folder / f"{batch.label}.json", {"name": batch.name, "keys": keys})


def written_batches(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and keys of every batch that was to be submitted."""
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        assert content is not None, "nothing is deleted from an experiment"
        yield content["name"], content["keys"]
