from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from golf.config import (
    ContainerConfig,
    DataConfig,
    FanoutConfig,
    Job,
    ModelConfig,
    ResourcesConfig,
    load_job,
)
from launcher.checks import Verdict, check_plan, num_parameters, refused
from launcher.cluster_checks import gpu_hours
from launcher.experiment import ExperimentPaths
from launcher.machine import GIB, Machine
from launcher.plan import Plan, make_plan
from launcher.plan_text import command_lines
from launcher.ray_checks import ray_checks
from launcher.spec import find_job

LAPTOP = Machine(num_cores=2, memory_bytes=8 * GIB, gpus=())
NODE = Machine(num_cores=96, memory_bytes=1024 * GIB, gpus=tuple("01234567"))


def plan(job: Job, tmp_path: Path, *seeds: int, data: Path | None = None) -> Plan:
    return make_plan(job, seeds or (1337, 42), ExperimentPaths(tmp_path / "x-1"), data)


def smoke() -> Job:
    return Job(
        model=ModelConfig(vocab_size=512),
        data=DataConfig(source="embedded", val_docs=30),
        resources=ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=2, time_minutes=15),
    )


def verdicts(plan: Plan, machine: Machine) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in check_plan(plan, machine)}


def test_the_command_lines_of_a_small_job(tmp_path: Path) -> None:
    assert "\n".join(command_lines(plan(smoke(), tmp_path))) == (
        f"""RUN={tmp_path}/x-1
# prepare
golf prepare --docs embedded --out $RUN/data --vocab-size 512 --val-docs 30
# 1337/train
golf train --config $RUN/job.toml --data $RUN/data --out $RUN/seeds/1337/train --seed 1337 """
        """--device cpu --resume
golf quantize --config $RUN/job.toml --checkpoint $RUN/seeds/1337/train/model.safetensors """
        """--code $RUN/train_gpt.py --out $RUN/seeds/1337/train/model.golf
golf eval --config $RUN/job.toml --data $RUN/data --artifact $RUN/seeds/1337/train/model.golf """
        """--protocol sequential --out $RUN/seeds/1337/train/roundtrip --device cpu --resume
# 1337/eval
golf eval --config $RUN/job.toml --data $RUN/data --artifact $RUN/seeds/1337/train/model.golf """
        """--protocol sliding --out $RUN/seeds/1337/eval/sliding --device cpu --resume
golf eval --config $RUN/job.toml --data $RUN/data --artifact $RUN/seeds/1337/train/model.golf """
        """--protocol ttt --out $RUN/seeds/1337/eval/ttt --device cpu --resume
golf verify $RUN/seeds/1337/eval/ttt
# and the same for 42"""
    )


def test_ttt_runs_over_ray_workers_where_the_job_asks_for_some(tmp_path: Path) -> None:
    job = dataclasses.replace(
        smoke(),
        fanout=FanoutConfig(workers=2),
        resources=dataclasses.replace(smoke().resources, cpus_per_task=4),
    )
    stage = plan(job, tmp_path, 1).stages[-1]
    assert [command.argv[:3] for command in stage.commands[:2]] == [
        ("golf", "eval", "--config"),
        ("python", "-m", "launcher.fanout"),
    ]
    assert stage.env == {"OMP_NUM_THREADS": "2"}
    assert stage.commands[1].done == "ttt/result.json"


def over_two_nodes() -> Job:
    return dataclasses.replace(smoke(), fanout=FanoutConfig(workers=4, nodes=2))


def test_an_evaluation_over_several_nodes_has_them_to_itself_and_keeps_them_all_busy(
    tmp_path: Path,
) -> None:
    *_, train, evaluate = plan(over_two_nodes(), tmp_path, 1).stages
    assert (train.resources.nodes, evaluate.resources.nodes) == (1, 2)
    sliding, ttt, verify = (shlex.join(command.argv) for command in evaluate.commands)
    for line in (sliding, ttt):
        assert line.startswith("python -m launcher.fanout --config ")
        assert f"--meeting {tmp_path}/x-1/seeds/1/eval/nodes" in line
    assert sliding.endswith("--set ttt.schedule=strict")
    assert verify.startswith("golf verify")


def test_nodes_of_an_evaluation_cost_gpu_hours(tmp_path: Path) -> None:
    record = load_job(find_job("record"), ("fanout.workers=16", "fanout.nodes=2"))
    alone = load_job(find_job("record"))
    hours = [gpu_hours(plan(job, tmp_path, 7, data=tmp_path)) for job in (alone, record)]
    assert hours == [16.0, 24.0]


def test_an_image_without_ray_is_refused_and_workers_without_a_core_are_told(
    tmp_path: Path,
) -> None:
    contents = tmp_path / "opt/golf-launch/contents.txt"
    contents.parent.mkdir(parents=True)
    contents.write_text("arrayprep==1\ntorch==2.13.0\n")
    container = ContainerConfig(runtime="charliecloud", image=str(tmp_path))
    job = dataclasses.replace(over_two_nodes(), container=container)
    assert ray_checks(job)[0].verdict is Verdict.FAIL
    contents.write_text("ray==2.60.0\n")
    check, crowded = ray_checks(job)
    assert (crowded.verdict, crowded.figure) == (Verdict.WARN, "2 a node, on 1 core")
    assert (check.verdict, check.figure) == (Verdict.OK, f"2.60.0 in {tmp_path}")
    elsewhere = dataclasses.replace(container, image="/images/golf.sqfs")
    check, _ = ray_checks(dataclasses.replace(job, container=elsewhere))
    assert "doctor --job" in check.figure
    assert ray_checks(smoke()) == ()


def test_what_one_machine_cannot_be_is_refused_with_the_fix(tmp_path: Path) -> None:
    [check] = [c for c in check_plan(plan(over_two_nodes(), tmp_path), LAPTOP) if c.name == "nodes"]
    assert check.verdict is Verdict.FAIL
    assert "--set fanout.nodes=1" in check.fix
    assert "fanout.nodes=2" in check.figure


def test_several_nodes_for_training_are_refused_and_the_evaluation_s_are_named(
    tmp_path: Path,
) -> None:
    job = load_job(find_job("record"), ("resources.nodes=2",))
    checks = check_plan(plan(job, tmp_path, data=tmp_path), NODE)
    assert "--set fanout.nodes=N" in {check.name: check.fix for check in checks}["nodes"]


def test_stages_wait_for_what_they_need(tmp_path: Path) -> None:
    after = {stage.key: stage.after for stage in plan(smoke(), tmp_path).stages}
    assert after == {
        "prepare": (),
        "1337/train": ("prepare",),
        "1337/eval": ("1337/train",),
        "42/train": ("prepare",),
        "42/eval": ("42/train",),
    }


def test_given_data_is_not_prepared_again(tmp_path: Path) -> None:
    stages = plan(smoke(), tmp_path, data=tmp_path / "mine").stages
    assert [stage.key for stage in stages] == ["1337/train", "1337/eval", "42/train", "42/eval"]
    assert str(tmp_path / "mine") in stages[0].commands[0].argv


def test_a_job_on_gpus_runs_on_every_rank_of_a_node(tmp_path: Path) -> None:
    train, evaluate = plan(load_job(find_job("record")), tmp_path, 7, data=tmp_path).stages
    torchrun = "torchrun --standalone --nproc_per_node=8 -m golf"
    assert shlex.join(train.commands[0].argv).startswith(f"{torchrun} train --config")
    assert shlex.join(evaluate.commands[1].argv).startswith(f"{torchrun} eval --config")
    assert "--device cuda" in shlex.join(train.commands[0].argv)
    assert [c.argv[0] for c in (*train.commands, *evaluate.commands)] == [
        "torchrun", "golf", "torchrun", "torchrun", "torchrun", "golf",
    ]  # fmt: skip
    assert train.env == {"OMP_NUM_THREADS": "8"}


def test_a_small_job_passes_every_check_on_a_laptop(tmp_path: Path) -> None:
    assert set(verdicts(plan(smoke(), tmp_path), LAPTOP).values()) == {Verdict.OK}


def test_the_record_job_is_refused_where_there_are_no_gpus_with_what_to_do_instead(
    tmp_path: Path,
) -> None:
    checks = check_plan(plan(load_job(find_job("record")), tmp_path), LAPTOP)
    assert refused(checks)
    fixes = {check.name: check.fix for check in checks if check.verdict is Verdict.FAIL}
    assert set(fixes) == {"cores", "memory", "GPUs", "data"}
    assert "golf-launch smoke --seeds 1337,42" in fixes["GPUs"]
    assert "--set resources.gpus_per_node=0" in fixes["GPUs"]
    assert "--data DIR" in fixes["data"]


def test_the_record_job_is_accepted_on_a_node_with_8_gpus_and_data(tmp_path: Path) -> None:
    for name in ("fineweb_train_000000.bin", "fineweb_val_000000.bin", "tokenizer.model"):
        (tmp_path / name).touch()
    job = load_job(find_job("record"))
    assert not refused(check_plan(plan(job, tmp_path, data=tmp_path), NODE))


def test_the_shipped_smoke_job_runs_on_a_laptop_without_data_of_its_own(tmp_path: Path) -> None:
    shipped = plan(load_job(find_job("smoke")), tmp_path)
    assert shipped.stages[0].key == "prepare"
    assert not refused(check_plan(shipped, LAPTOP))


def test_one_seed_is_allowed_with_a_warning(tmp_path: Path) -> None:
    checks = check_plan(plan(smoke(), tmp_path, 7), LAPTOP)
    assert checks[0].verdict is Verdict.WARN
    assert not refused(checks)


def test_the_pipelined_schedule_runs_where_there_are_workers_to_split(tmp_path: Path) -> None:
    ttt = dataclasses.replace(smoke().ttt, schedule="pipelined")
    fanout = FanoutConfig(workers=3)
    job = dataclasses.replace(smoke(), ttt=ttt, fanout=fanout)
    assert not refused(check_plan(plan(job, tmp_path), LAPTOP))
    lone = dataclasses.replace(job, fanout=FanoutConfig(workers=1))
    assert verdicts(plan(lone, tmp_path), LAPTOP)["schedule"] is Verdict.FAIL


@pytest.mark.parametrize(
    ("section", "changes", "check"),
    [
        ("resources", {"nodes": 2}, "nodes"),
        ("container", {"runtime": "apptainer", "image": "x.sif"}, "container"),
        ("ttt", {"schedule": "pipelined"}, "schedule"),
    ],
)
def test_what_one_machine_cannot_run_is_refused(
    section: str, changes: dict[str, object], check: str, tmp_path: Path
) -> None:
    job = smoke()
    changed = dataclasses.replace(getattr(job, section), **changes)
    job = dataclasses.replace(job, **{section: changed})
    assert verdicts(plan(job, tmp_path), LAPTOP)[check] is Verdict.FAIL


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([], "no fineweb_train_"),
        (["fineweb_train_0.bin"], "no fineweb_val_"),
        (["fineweb_train_0.bin", "fineweb_val_0.bin"], "no tokenizer.model"),
    ],
)
def test_incomplete_data_is_refused(files: list[str], problem: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in files:
        (data / name).touch()
    job = dataclasses.replace(smoke(), data=DataConfig(source=str(data)))
    [check] = [c for c in check_plan(plan(job, tmp_path), LAPTOP) if c.name == "data"]
    assert check.verdict is Verdict.FAIL
    assert problem in check.figure


def test_data_made_for_another_vocabulary_is_refused(tmp_path: Path) -> None:
    for name in ("fineweb_train_0.bin", "fineweb_val_0.bin", "tokenizer.model"):
        (tmp_path / name).touch()
    (tmp_path / "manifest.json").write_text('{"settings": {"vocab_size": 1024}}')
    [check] = [
        c for c in check_plan(plan(smoke(), tmp_path, data=tmp_path), LAPTOP) if c.name == "data"
    ]
    assert "made for a vocabulary of 1024, the job's is 512" in check.figure


def test_the_record_model_has_exactly_the_published_number_of_parameters() -> None:
    assert num_parameters(ModelConfig()) == 26_993_756


def test_a_stage_that_needs_much_memory_takes_the_cores_that_go_with_it() -> None:
    machine = Machine(num_cores=8, memory_bytes=16 * GIB, gpus=())
    light = ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=2)
    heavy = ResourcesConfig(gpus_per_node=0, cpus_per_task=1, mem_gb=7)
    assert [machine.places(light), machine.places(heavy)] == [8, 2]
