"""The launcher's commands on a site: doctor, plan, and how often Slurm is asked."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from cluster_lab import PROFILE, ClusterLab
from lab import python, stage

from launcher.cli import main
from launcher.states import State
from launcher.submit import read_statuses, submit_missing

PROFILE_TEXT = """
[site]
executor = "slurm"
runs = "{runs}"
[slurm]
partition = "main"
"""


@pytest.fixture
def profile(lab: ClusterLab, tmp_path: Path) -> Path:
    path = tmp_path / "profile.toml"
    path.write_text(PROFILE_TEXT.format(runs=lab.runs))
    return path


def test_doctor_asks_the_site_and_a_node(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--profile", str(profile), "--job", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["accounting"]["verdict"] == "warn"
    assert checks["partition"]["figure"] == "main up, 2 nodes, 1:00:00 at most, GPUs gpu:8"
    assert {checks[n]["verdict"] for n in ("runs on a node", "torch", "Ray")} == {"ok"}


def test_doctor_names_the_partitions_that_there_are(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile.write_text(profile.read_text().replace('"main"', '"man"'))
    assert main(["doctor", "--profile", str(profile)]) == 1
    assert "one of: main, urgent" in " ".join(capsys.readouterr().out.split())


def test_a_dry_run_shows_the_scripts_and_slurm_s_own_estimate(
    profile: Path, lab: ClusterLab, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["smoke", "--seeds", "1,2", "--profile", str(profile), "--dry-run"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "would start at" in shown
    assert "#SBATCH --signal=B:USR2@120" in shown
    assert "-m golf stage" in shown
    assert shown.count("#SBATCH --job-name") == 3, "data, training, evaluation"
    assert shown.count("put_back()") == 1, "what they have in common stands in the first"
    assert lab.site.call("squeue", "-h").stdout == ""
    assert not lab.runs.exists(), "nothing is written"


def test_what_slurm_could_never_start_is_refused_before_anything_is_registered(
    profile: Path, lab: ClusterLab, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["smoke", "--seeds", "1,2", "--profile", str(profile)]
    assert main([*words, "--set", "resources.cpus_per_task=64"]) == 2
    assert "Requested node configuration is not available" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not lab.runs.exists()


def test_a_drained_site_gives_no_estimate_and_takes_the_jobs_all_the_same(
    profile: Path, lab: ClusterLab, capsys: pytest.CaptureFixture[str]
) -> None:
    for node in ("node1", "node2"):
        lab.site.call("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=t")
    assert main(["plan", "smoke", "--seeds", "1,2", "--profile", str(profile)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Slurm gives no estimate, because no node of main can take a job now: 2 drained" in shown


def test_a_job_that_would_be_warned_as_it_starts_is_refused(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "smoke", "--seeds", "1,2", "--profile", str(profile)]
    assert main([*words, "--set", "resources.time_minutes=3"]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "raise resources.time_minutes, or lower slurm.signal_seconds" in shown


def test_slurm_is_asked_once_an_interval_however_many_seeds_there_are(lab: ClusterLab) -> None:
    slurm = dataclasses.replace(PROFILE.slurm, poll_seconds=60.0, array_from=2)
    profile = dataclasses.replace(PROFILE, slurm=slurm)
    stages = [stage(seed, "train", python("print(1)")) for seed in range(200)]
    experiment = lab.register(stages, profile=profile)
    lab.site.call("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        submit_missing(experiment, lab.executor(experiment, profile))
        executor = lab.executor(experiment, profile)
        for _ in range(3):
            statuses = read_statuses(experiment, executor, time.time())
        assert {status.state for status in statuses.values()} == {State.WAITING}
        assert executor._queue.num_calls == 1
        [job] = {s.job_id.partition("_")[0] for s in experiment.submissions().values()}
        lab.site.call("scancel", job, check=True)
    finally:
        lab.site.call("scontrol", "update", "PartitionName=main", "State=UP")
