"""Stages on real nodes inside a real image: the CPU one, entered by Charliecloud."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cluster_lab import WAITS_FOR_STOP, ClusterLab
from lab import stage

from golf.config import ContainerConfig, Job, JobConfig
from golf.records import read_json
from launcher.cli import main
from launcher.experiment import Experiment
from launcher.report import collect
from launcher.stage import Command, Stage
from launcher.states import State
from launcher.submit import submit_missing

PROFILE_TEXT = """
[site]
executor = "slurm"
runs = "{runs}"
[slurm]
partition = "main"
poll_seconds = 0.3
[container]
runtime = "charliecloud"
image = "{image}"
image_id = "{image_id}"
"""
TINY = (
    *("schedule.iterations=4", "schedule.val_every=0", "schedule.checkpoint_every=2"),
    *("data.val_docs=2", "evaluate.stride=128", "ttt.chunk_tokens=2048"),
    *("fanout.workers=2", "fanout.nodes=2"),
)
"""Of the smoke job: everything it does, in seconds."""


@pytest.fixture
def image(golf_image: Path, lab: ClusterLab) -> Path:
    """With the folder of the runs, which ch-run can only mount where the image has it."""
    (golf_image / str(lab.runs).lstrip("/")).mkdir(parents=True, exist_ok=True)
    return golf_image


def image_id(image: Path) -> str:
    return (image / "opt/golf-launch/image-id").read_text().strip()


def register(lab: ClusterLab, work: Stage, image: Path) -> Experiment:
    container = ContainerConfig(runtime="charliecloud", image=str(image))
    return lab.register([work], job=Job(job=JobConfig(name="test"), container=container))


def python_inside(code: str) -> Command:
    return Command(name="work", argv=("python3", "-c", code))


def test_a_job_trains_quantizes_and_evaluates_inside_its_image(
    lab: ClusterLab, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.toml"
    text = PROFILE_TEXT.format(runs=lab.runs, image=image, image_id=image_id(image))
    profile.write_text(text)
    assert main(["doctor", "--profile", str(profile), "--job"]) == 0, capsys.readouterr().out
    settings = [word for setting in TINY for word in ("--set", setting)]
    code = main(["smoke", "--seeds", "1", "--profile", str(profile), *settings])
    assert code == 0, capsys.readouterr().out
    [root] = lab.runs.glob("smoke-*")
    experiment = Experiment.open(root)
    report = collect(experiment, lab.executor(experiment))
    assert report.seeds[0].images == (image_id(image),)
    assert report.seeds[0].ledger == "verified"
    [gate] = [gate for gate in report.gates if gate.name == "one container image"]
    assert gate.passed
    assert gate.note == image_id(image)


def test_a_stage_that_finds_itself_in_another_image_ends_before_any_work_and_is_not_retried(
    lab: ClusterLab, image: Path
) -> None:
    marker = lab.runs / "worked"
    work = stage(1, "train", python_inside(f"open({str(marker)!r}, 'w')"))
    work = dataclasses.replace(work, image_id="sha256:other")
    experiment = register(lab, work, image)
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert status.state is State.FAILED
    wanted = f"runs in image {image_id(image)}, and container.image_id wants sha256:other"
    assert status.reason.startswith(wanted)
    assert status.attempt == 1
    assert not marker.exists()


def test_a_stage_beside_its_image_does_not_start(
    lab: ClusterLab, image: Path, tmp_path: Path
) -> None:
    """An image that none of our files made, as when a runtime is ignored."""
    foreign = tmp_path / "foreign"
    for folder in ("bin", "dev", "proc", "sys", "etc", "tmp", "usr/bin", str(lab.runs).lstrip("/")):
        (foreign / folder).mkdir(parents=True, exist_ok=True)
    for file in ("passwd", "group", "hosts", "resolv.conf"):  # ch-run puts the host's over them
        (foreign / "etc" / file).touch()
    experiment = register(lab, stage(1, "train", python_inside("print(1)")), foreign)
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert status.state is State.FAILED
    assert "entrypoint.sh" in status.reason


def test_a_warning_reaches_the_command_inside_and_the_job_goes_on_after_its_requeue(
    lab: ClusterLab, image: Path
) -> None:
    marker = lab.runs / "checkpoint"
    code = WAITS_FOR_STOP.format(marker=str(marker))
    experiment = register(lab, stage(1, "train", python_inside(code)), image)
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    lab.wait_for_log(experiment, "1/train", "working")
    job_id = lab.job_id(experiment, "1/train")
    lab.site.call("scancel", "--batch", "--signal=USR2", job_id, check=True)
    lab.wait_for_log(experiment, "1/train", "checkpoint written")
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert status.state is State.DONE
    assert status.attempt == 2
    assert read_json(experiment.paths.stage("1/train").status)["image"] == image_id(image)
