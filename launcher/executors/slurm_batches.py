"""Stages grouped into Slurm jobs: one each, or an array where there are many of a kind.

A batch is one sbatch. Its name holds the experiment's unique name, so that a job whose submission
was never recorded is found again in the queue. It is written down before it is submitted:

    jobs/train-1337.json    {"name": "smoke-...:train-1337", "keys": ["1337/train"]}
    jobs/train.json         {"name": "smoke-...:train", "keys": ["1/train", "2/train", ...]}
    jobs/eval-lr=0.01-1337.json, of a sweep

A task of an array waits for the task of the same number of another, so that an array's needs are
one array in its very order; stages of which that is not so are jobs of their own.
"""

from __future__ import annotations

from collections import Counter
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
    batches: list[Batch] = []
    taken: set[str] = set()
    for members in _groups(stages):
        whole = len(members) >= array_from and _can_be_array(members, batches)
        for part in [members] if whole else [[stage] for stage in members]:
            label = _label(part)
            free = _free_label(paths.jobs, label, taken)
            taken.add(free)
            name = f"{paths.root.name}:{free}"
            batches.append(Batch(name=name, label=free, stages=tuple(part)))
    return tuple(batches)


def _groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages that one array could hold: of one kind and size, each with another's result to need.

    Of those that need the same result, as variants that share their training do, the first of each
    make a group, then the second, and so on.
    """
    submitted = {stage.key for stage in stages}
    groups: dict[tuple[object, ...], list[Stage]] = {}
    before: Counter[tuple[object, ...]] = Counter()
    for stage in stages:
        needs = tuple(key for key in stage.after if key in submitted)
        alike = (stage.kind, stage.resources, bool(needs))
        number = 0
        if any("/" in key for key in needs):  # a run's result, not the data of all
            number = before[*alike, needs]
            before[*alike, needs] += 1
        groups.setdefault((*alike, number), []).append(stage)
    return list(groups.values())


def _can_be_array(members: Sequence[Stage], batches: Sequence[Batch]) -> bool:
    """Whether each member needs nothing of its own, or the task of its number in one array."""
    wanted = [key for stage in members for key in stage.after]
    holders = [batch for batch in batches if {stage.key for stage in batch.stages} & {*wanted}]
    if not any(batch.is_array for batch in holders):
        return True
    return len(holders) == 1 and [stage.key for stage in holders[0].stages] == wanted


def _label(stages: Sequence[Stage]) -> str:
    """`eval-1337`, of a sweep `eval-lr=0.01-1337`; of an array the kind, and its variant if one."""
    first = stages[0]
    variants = {stage.variant for stage in stages}
    words = [first.kind, *sorted(variants)] if len(variants) == 1 else [first.kind]
    if len(stages) == 1 and first.seed is not None:
        words.append(str(first.seed))
    return "-".join(filter(None, words))


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
