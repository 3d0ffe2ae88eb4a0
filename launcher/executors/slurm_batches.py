"""Stages grouped into Slurm jobs: one each, or an array where there are many of a kind.

A batch is one sbatch. Its name holds the experiment's unique name, so that a job whose submission
was never recorded is found again in the queue. It is written down before it is submitted:

    jobs/train-1337.json    {"name": "smoke-...:train-1337", "keys": ["1337/train"]}
    jobs/train.json         {"name": "smoke-...:train", "keys": ["1/train", "2/train", ...]}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def make_batches(
    paths: ExperimentPaths, stages: Sequence[Stage], array_from: int
) -> tuple[Batch, ...]:
    """Group stages of one kind and one set of needs, those that others wait for first."""
    groups: dict[tuple[str, bool], list[Stage]] = {}
    submitted = {stage.key for stage in stages}
    for stage in stages:
        needs = any(key in submitted for key in stage.after)
        groups.setdefault((stage.kind, needs), []).append(stage)
    batches: list[Batch] = []
    taken: set[str] = set()
    for (kind, _), members in groups.items():
        parts = [members] if len(members) >= array_from else [[stage] for stage in members]
        for part in parts:
            one = len(part) == 1 and part[0].seed is not None
            label = f"{kind}-{part[0].seed}" if one else kind
            free = _free_label(paths.jobs, label, taken)
            taken.add(free)
            name = f"{paths.root.name}:{free}"
            batches.append(Batch(name=name, label=free, stages=tuple(part)))
    return tuple(batches)


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
