"""A disk that fills up under a real training, and what is left when there is space again."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_lab import ClusterLab
from lab import python, stage

from golf.config import Job
from golf.records import DataPaths, read_lines
from launcher.experiment import Experiment, ExperimentPaths
from launcher.plan import make_plan
from launcher.states import State
from launcher.submit import submit_missing

DISK_BYTES = 12 * 1024 * 1024
ONE_CHECKPOINT_BYTES = 900_000
"""Room for the first checkpoint of the tiny model and not for the second."""


@pytest.fixture
def small_disk(lab: ClusterLab, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small-disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    lab.site.clear()  # no job may stand in the folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def registered(lab: ClusterLab, job: Job, data: DataPaths) -> Experiment:
    """One seed, trained and quantized."""
    paths = ExperimentPaths(lab.runs / "test-1")
    train = next(s for s in make_plan(job, [1], paths, data.root).stages if s.kind == "train")
    commands = tuple(c for c in train.commands if c.name in ("train", "quantize"))
    return lab.register([dataclasses.replace(train, commands=commands)], "test-1", job=job)


def free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def test_a_full_disk_fails_as_that_and_a_resume_gives_the_numbers_of_an_undisturbed_run(
    lab: ClusterLab, small_disk: Path, tiny_job: Job, tiny_data: DataPaths
) -> None:
    small = dataclasses.replace(lab, runs=small_disk)
    alone, disturbed = (registered(each, tiny_job, tiny_data) for each in (lab, small))
    executors = {e.paths.root: lab.executor(e) for e in (alone, disturbed)}
    disturbed.paths.jobs.mkdir()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(free_bytes(small_disk) - ONE_CHECKPOINT_BYTES))
    for experiment in (alone, disturbed):
        submit_missing(experiment, executors[experiment.paths.root])
    told = lab.told_within_two_polls(disturbed, executors[disturbed.paths.root], "1/train")
    assert told.status.state is State.FAILED
    assert "train exited with code 1: No space left on device" in told.status.reason
    assert told.num_attempts == 1
    left = disturbed.paths.train(1)
    assert not left.model.exists()
    assert not left.result.exists()
    checkpoints = sorted(path.name for path in (left.root / "checkpoint").iterdir())
    assert checkpoints == ["step-00000002.safetensors"], "nothing half-written is kept"

    ballast.unlink()
    submit_missing(disturbed, executors[disturbed.paths.root])
    for experiment in (alone, disturbed):
        statuses = lab.wait_until_over(experiment, executors[experiment.paths.root])
        assert statuses["1/train"].state is State.DONE
    assert "resuming after step 2" in lab.log(disturbed, "1/train")
    one, other = (e.paths for e in (alone, disturbed))
    assert one.train(1).model.read_bytes() == other.train(1).model.read_bytes()
    losses = [
        [(m["step"], m["train_loss"]) for m in read_lines(paths.train(1).metrics)]
        for paths in (one, other)
    ]
    assert losses[0] == losses[1]


def test_a_disk_without_a_byte_left_is_told_although_the_stage_could_not(
    lab: ClusterLab, small_disk: Path
) -> None:
    small = dataclasses.replace(lab, runs=small_disk)
    fills = f"""
import time
print("working", flush=True)
path = {str(small_disk / "ballast")!r}
with open(path, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
raise SystemExit(1)
"""
    experiment = small.register([stage(1, "train", python(fills))])
    executor = small.executor(experiment)
    submit_missing(experiment, executor)
    told = small.told_within_two_polls(experiment, executor, "1/train")
    assert told.status.state is State.FAILED
    assert "No space left on device" in told.status.reason
    assert "working" in told.log_tail
    (small_disk / "ballast").unlink()
