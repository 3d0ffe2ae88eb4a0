"""Stages as real Slurm jobs on two nodes: chains, names, devices, failures."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from cluster_lab import PROFILE, SMALL, ClusterLab
from lab import python, stage, train_and_eval

from golf.config import ResourcesConfig, job_from_sections
from launcher.errors import LaunchError
from launcher.profile import Profile
from launcher.states import State
from launcher.submit import submit_missing
from launcher.sweep import make_variants


def states_of(statuses: dict) -> dict[str, State]:
    return {key: status.state for key, status in statuses.items()}


def test_one_seed_s_failure_skips_its_evaluation_only_and_resume_runs_what_is_missing(
    lab: ClusterLab,
) -> None:
    mended = lab.runs.parent / "mended"
    failing = f"import os; assert os.path.exists({str(mended)!r}), 'not mended'"
    experiment = lab.register([*train_and_eval(1, "print(1)"), *train_and_eval(2, failing)])
    executor = lab.executor(experiment)
    assert len(submit_missing(experiment, executor)) == 4
    statuses = lab.wait_until_over(experiment, executor)
    assert states_of(statuses) == {
        "1/train": State.DONE,
        "1/eval": State.DONE,
        "2/train": State.FAILED,
        "2/eval": State.SKIPPED,
    }
    assert statuses["2/train"].reason.startswith("work exited with code 1")
    assert statuses["2/train"].attempt == 1, "what fails for a reason is not retried"
    assert statuses["2/eval"].reason == "2/train did not succeed"
    assert "not mended" in lab.log(experiment, "2/train")

    mended.touch()
    assert [s.key for s in submit_missing(experiment, executor)] == ["2/train", "2/eval"]
    assert set(states_of(lab.wait_until_over(experiment, executor)).values()) == {State.DONE}
    assert submit_missing(experiment, executor) == ()


def test_squeue_shows_names_a_person_can_read(lab: ClusterLab) -> None:
    experiment = lab.register(train_and_eval(7, "import time; time.sleep(60)"), "test-1")
    submit_missing(experiment, lab.executor(experiment))
    shown = lab.site.call("squeue", "-h", "-o", "%j|%k", check=True).stdout.splitlines()
    assert sorted(shown) == [
        "test-1:eval-7|golf-launch eval of seed 7",
        "test-1:train-7|golf-launch train of seed 7",
    ]


@pytest.mark.parametrize("num_gpus", [0, 2, 8])
def test_a_stage_sees_its_gpus_and_nothing_of_the_job_around_its_launcher(
    lab: ClusterLab, num_gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "elsewhere")
    monkeypatch.setenv("SLURM_JOB_GPUS", "77")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    resources = dataclasses.replace(SMALL, gpus_per_node=num_gpus)
    told = dataclasses.replace(stage(1, "train", python(code)), resources=resources)
    experiment = lab.register([told])
    executor = lab.executor(experiment)
    submit_missing(experiment, executor)
    assert lab.wait_until_over(experiment, executor)["1/train"].state is State.DONE
    env = json.loads(lab.log(experiment, "1/train").splitlines()[-1])
    assert env.get("CUDA_VISIBLE_DEVICES", "") == ",".join(map(str, range(num_gpus)))
    assert env["SLURM_JOB_NODELIST"] in ("node1", "node2")
    assert env.get("SLURM_JOB_GPUS") != "77"
    assert env["PYTHONPATH"] == str(experiment.paths.code)


def test_many_seeds_are_two_arrays_whose_tasks_wait_for_each_other_one_by_one(
    lab: ClusterLab,
) -> None:
    profile = dataclasses.replace(PROFILE, slurm=dataclasses.replace(PROFILE.slurm, array_from=4))
    stages = [s for seed in (3, 5, 7) for s in train_and_eval(seed, f"print({seed})")]
    stages += train_and_eval(11, "raise SystemExit(9)")
    experiment = lab.register(stages, profile=profile)
    executor = lab.executor(experiment, profile)
    submit_missing(experiment, executor)
    ids = {job.job_id.partition("_")[0] for job in experiment.submissions().values()}
    assert len(ids) == 2
    states = states_of(lab.wait_until_over(experiment, executor))
    assert states.pop("11/train") is State.FAILED
    assert states.pop("11/eval") is State.SKIPPED
    assert set(states.values()) == {State.DONE}


def test_a_sweep_that_shares_its_training_waits_task_by_task_in_arrays_or_alone(
    lab: ClusterLab,
) -> None:
    profile = dataclasses.replace(PROFILE, slurm=dataclasses.replace(PROFILE.slurm, array_from=3))
    base = {"resources": dataclasses.asdict(SMALL)}
    # Two trained variants and one that shares the second's: its tasks correspond to no array.
    swept = [("optim.matrix_lr=0.1", "ttt.lr=1.0"), ("optim.matrix_lr=0.2", "ttt.lr=1.0")]
    swept.append(("optim.matrix_lr=0.2", "ttt.lr=2.0"))
    variants = make_variants(swept, lambda settings: job_from_sections(base, settings))
    stages = []
    for variant in variants:
        for seed in (3, 5, 7):
            mark = f"{variant.key}/{seed}/train"
            code = "raise SystemExit(9)" if seed == 7 and variant is variants[1] else "pass"
            train = dataclasses.replace(stage(seed, "train", python(code)), key=mark)
            needs = f"{variant.trained_by}/{seed}/train"
            evaluate = stage(seed, "eval", python("print('done')"), after=[needs])
            stages += [train] if variant.trains else []
            stages.append(dataclasses.replace(evaluate, key=f"{variant.key}/{seed}/eval"))
    experiment = lab.register(stages, profile=profile, variants=variants)
    executor = lab.executor(experiment, profile)
    submit_missing(experiment, executor)
    jobs = {key: job.job_id.partition("_")[0] for key, job in experiment.submissions().items()}
    assert len(set(jobs.values())) == 1 + 1 + 3
    states = states_of(lab.wait_until_over(experiment, executor))
    owner, sharer = variants[1].key, variants[2].key
    assert states.pop(f"{owner}/7/train") is State.FAILED
    assert states.pop(f"{owner}/7/eval") is states.pop(f"{sharer}/7/eval") is State.SKIPPED
    assert set(states.values()) == {State.DONE}


def refusing() -> Profile:
    return dataclasses.replace(
        PROFILE, slurm=dataclasses.replace(PROFILE.slurm, partition="nowhere")
    )


def test_what_sbatch_refuses_is_told_in_its_words_and_nothing_stays_submitted(
    lab: ClusterLab,
) -> None:
    experiment = lab.register(train_and_eval(1, "print(1)"), profile=refusing())
    executor = lab.executor(experiment, refusing())
    with pytest.raises(LaunchError, match="invalid partition specified: nowhere"):
        submit_missing(experiment, executor)
    assert set(states_of(lab.statuses(experiment, executor)).values()) == {State.PLANNED}


def test_a_failing_setup_line_ends_the_job_and_is_named(lab: ClusterLab) -> None:
    slurm = dataclasses.replace(PROFILE.slurm, setup=("export A=1", "false", "export A=2"))
    profile = dataclasses.replace(PROFILE, slurm=slurm)
    experiment = lab.register([stage(1, "train", python("print(1)"))], profile=profile)
    executor = lab.executor(experiment, profile)
    submit_missing(experiment, executor)
    status = lab.wait_until_over(experiment, executor)["1/train"]
    assert status.state is State.FAILED
    assert "a setup line of the profile failed" in status.reason


def test_a_job_that_is_held_or_too_large_for_its_partition_says_so(lab: ClusterLab) -> None:
    long = ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=1, time_minutes=600)
    held = stage(1, "train", python("print(1)"))
    slow = dataclasses.replace(stage(2, "train", python("print(2)")), resources=long)
    experiment = lab.register([slow, held])
    executor = lab.executor(experiment)
    for node in ("node1", "node2"):
        lab.site.call("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=t")
    submit_missing(experiment, executor)
    lab.site.call("scontrol", "hold", lab.job_id(experiment, "1/train"), check=True)
    executor = lab.executor(experiment)
    lab.site.wait_until(
        lambda: "JobHeld" in lab.statuses(experiment, executor)["1/train"].reason, "the hold"
    )
    lab.site.wait_until(
        lambda: "PartitionTimeLimit" in lab.statuses(experiment, executor)["2/train"].reason,
        "the time limit to be told",
    )


def test_the_interpreter_is_the_launcher_s_own_unless_the_profile_names_one(
    lab: ClusterLab,
) -> None:
    experiment = lab.register([stage(1, "train", python("print(1)"))])
    submit_missing(experiment, lab.executor(experiment))
    [script] = experiment.paths.jobs.glob("*submission.sh")
    assert f"{sys.executable} -m golf stage" in script.read_text()
