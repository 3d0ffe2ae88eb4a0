"""Which stages become one array, and what each of its tasks waits for. No Slurm is asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab import python, stage, train_and_eval

from launcher.executors.slurm_batches import Batch, make_batches
from launcher.executors.slurm_script import Needs, needs_of
from launcher.experiment import ExperimentPaths
from launcher.stage import Stage


def stages_of(seeds: Iterable[int], kind: str | None = None) -> list[Stage]:
    stages = [s for seed in seeds for s in train_and_eval(seed, "pass")]
    return [s for s in stages if kind in (None, s.kind)]


def batches_of(
    tmp_path: Path,
    stages: list[Stage],
    max_array: int = 1001,
    under_way: dict[str, str] | None = None,
) -> tuple[Batch, ...]:
    return make_batches(ExperimentPaths(tmp_path / "test-1"), stages, 4, max_array, under_way)


def needs(batches: Iterable[Batch], ids: dict[str, str] | None = None) -> list[str]:
    """Dependencies of batches that get the job ids 100, 101, ..."""
    ids, told = dict(ids or {}), []
    for number, batch in enumerate(batches):
        told.append(needs_of(batch, ids).words())
        ids |= {s.key: batch.task_id(str(100 + number), i) for i, s in enumerate(batch.stages)}
    return told


def test_few_seeds_are_jobs_of_their_own(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, stages_of([3, 5]))
    assert [batch.label for batch in batches] == ["train-3", "train-5", "eval-3", "eval-5"]
    assert needs(batches) == ["", "", "afterok:100", "afterok:101"]


def test_many_seeds_are_two_arrays_and_more_than_the_site_allows_are_cut(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, stages_of(range(10)), max_array=6)
    assert [len(batch.stages) for batch in batches] == [6, 4, 6, 4]
    assert [batch.label for batch in batches] == ["train", "train.2", "eval", "eval.2"]
    assert needs(batches) == ["", "", "aftercorr:100", "aftercorr:101"]


def test_a_site_without_arrays_gets_none(tmp_path: Path) -> None:
    batches = batches_of(tmp_path, stages_of(range(5)), max_array=0)
    assert {len(batch.stages) for batch in batches} == {1}


def test_the_data_are_waited_for_by_every_training_and_by_no_evaluation(tmp_path: Path) -> None:
    prepare = Stage(
        key="prepare", kind="prepare", seed=None, commands=(python("pass"),),
        resources=stage(1, "train").resources,
    )  # fmt: skip
    stages = [prepare]
    for seed in range(5):
        stages += [
            stage(seed, "train", python("pass"), after=["prepare"]),
            stage(seed, "eval", python("pass"), after=[f"{seed}/train"]),
        ]
    batches = batches_of(tmp_path, stages)
    assert needs(batches) == ["", "afterok:100", "aftercorr:101"]


def test_evaluations_of_trainings_under_way_wait_each_for_its_own(tmp_path: Path) -> None:
    """As after a launcher that died between the two submissions."""
    under_way = {f"{seed}/train": f"77_{seed}" for seed in range(5)}
    [whole] = batches_of(tmp_path, stages_of(range(5), "eval"), under_way=under_way)
    assert needs_of(whole, under_way) == Needs(arrays=("77",))


def test_tasks_that_do_not_match_number_by_number_are_jobs_of_their_own(tmp_path: Path) -> None:
    """An array would let evaluations start before their own training has ended."""
    under_way = {f"{seed}/train": f"77_{seed}" for seed in range(6)}
    batches = batches_of(tmp_path, stages_of(range(1, 6), "eval"), under_way=under_way)
    assert [batch.label for batch in batches] == [f"eval-{seed}" for seed in range(1, 6)]
    assert needs(batches, under_way) == [f"afterok:77_{seed}" for seed in range(1, 6)]
