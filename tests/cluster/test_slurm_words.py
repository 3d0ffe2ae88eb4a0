"""Everything that a profile names, as Slurm has it; and what is said where Slurm refuses it."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_lab import PROFILE, ClusterLab
from lab import python, stage, train_and_eval

from launcher.cli import main
from launcher.errors import LaunchError
from launcher.experiment import Experiment
from launcher.profile import Profile
from launcher.states import State
from launcher.submit import submit_missing

REFUSED = {
    "account": "nobody",
    "qos": "fastest",
    "partition": "nowhere",
    "constraint": "h100",
    "reservation": "party",
    "exclude": "node9",
    "mail_type": "SOMETIMES",
}
PROFILE_TEXT = """
[site]
executor = "slurm"
runs = "{runs}"
[slurm]
partition = "main"
{words}
"""


@pytest.fixture(scope="session")
def named(accounted_site) -> None:
    """Accounts, a QOS and node features for the tests to name."""
    manage = ["sacctmgr", "--immediate"]
    for words in (
        ["add", "account", "lab", "Description=lab", "Organization=lab"],
        ["add", "account", "poor", "Description=poor", "Organization=poor"],
        ["add", "user", "root", "account=lab,poor"],
        ["add", "qos", "fast"],
        ["modify", "user", "root", "where", "account=lab", "set", "qos+=fast"],
        ["modify", "account", "poor", "set", "GrpTRES=gres/gpu=1", "MaxSubmitJobs=1"],
    ):
        accounted_site.call(*manage, *words, check=True)
    for node in ("node1", "node2"):
        features = ("AvailableFeatures=a100,ib", "ActiveFeatures=a100,ib")
        accounted_site.call("scontrol", "update", f"NodeName={node}", *features, check=True)


@pytest.fixture
def site_lab(accounted_lab: ClusterLab, named: None) -> ClusterLab:
    return accounted_lab


@pytest.fixture
def reservation(site_lab: ClusterLab) -> Iterator[str]:
    call = site_lab.site.call
    words = ("StartTime=now", "Duration=30", "Users=root", "Nodes=node1,node2")
    call("scontrol", "create", "reservation", "ReservationName=camp", *words, check=True)
    yield "camp"
    call("scancel", "--user=root")
    site_lab.site.wait_until(
        lambda: call("scontrol", "delete", "ReservationName=camp").returncode == 0,
        "the reservation to go",
    )


def with_words(**words: object) -> Profile:
    return dataclasses.replace(PROFILE, slurm=dataclasses.replace(PROFILE.slurm, **words))


def submitted(lab: ClusterLab, profile: Profile, code: str) -> Experiment:
    experiment = lab.register([stage(1, "train", python(code))], profile=profile)
    submit_missing(experiment, lab.executor(experiment, profile))
    return experiment


def test_slurm_has_every_word_of_the_profile(
    site_lab: ClusterLab, reservation: str, tmp_path: Path
) -> None:
    profile = with_words(
        account="lab",
        qos="fast",
        constraint="a100&ib",
        exclude="node2",
        reservation=reservation,
        mail_user="me@example.org",
        mail_type="END,FAIL",
        exclusive=True,
        sbatch={"nice": "5", "spread-job": ""},
        srun=("--job-name=the-step", "--quiet"),
        setup=("export FROM_SETUP='a b'",),
    )
    show = "import os\nprint('setup:', os.environ['FROM_SETUP'])\nprint('step:',"
    show += " os.environ['SLURM_JOB_NAME'])\nimport time\ntime.sleep(120)"
    experiment = submitted(site_lab, profile, show)
    site_lab.wait_for_log(experiment, "1/train", "setup: a b")
    site_lab.wait_for_log(experiment, "1/train", "step: the-step")
    job_id = site_lab.job_id(experiment, "1/train")
    told = site_lab.site.call("scontrol", "show", "job", job_id, check=True).stdout
    words = dict(re.findall(r"([\w/:]+)=(\S*)", told))
    expected = {
        "JobName": f"{experiment.name}:train-1",
        "Account": "lab",
        "QOS": "fast",
        "Features": "a100&ib",
        "ExcNodeList": "node2",
        "NodeList": "node1",
        "Reservation": "camp",
        "Partition": "main",
        "MailUser": "me@example.org",
        "MailType": "END,FAIL",
        "Nice": "5",
        "OverSubscribe": "NO",
        "NumCPUs": "8",
        "TimeLimit": "00:05:00",
        "Requeue": "1",
    }
    assert {name: words[name] for name in expected} == expected
    assert "Comment=golf-launch train of seed 1" in told
    assert str(experiment.paths.jobs) in words["StdOut"]


@pytest.mark.parametrize("key", REFUSED)
def test_what_slurm_refuses_names_the_key_to_mend_and_leaves_nothing_behind(
    key: str, site_lab: ClusterLab
) -> None:
    profile = with_words(**{"mail_user": "me@example.org", key: REFUSED[key]})
    experiment = site_lab.register(train_and_eval(1, "pass"), profile=profile)
    executor = site_lab.executor(experiment, profile)
    with pytest.raises(LaunchError) as error:
        submit_missing(experiment, executor)
    assert f"mend slurm.{key} in the profile, it is '{REFUSED[key]}'" in str(error.value)
    assert str(error.value).endswith("nothing was submitted")
    assert experiment.submissions() == {}
    statuses = site_lab.statuses(experiment, executor)
    assert {status.state for status in statuses.values()} == {State.PLANNED}
    assert experiment.name not in site_lab.site.call("squeue", "-h", "-o", "%j").stdout


def test_plan_and_doctor_name_the_key_before_anything_is_written(
    site_lab: ClusterLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE_TEXT.format(runs=site_lab.runs, words='account = "nobody"'))
    told = "mend slurm.account in the profile, it is 'nobody'"
    assert main(["smoke", "--seeds", "1,2", "--profile", str(profile)]) == 2
    assert told in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "--profile", str(profile)]) == 1
    assert told in " ".join(capsys.readouterr().out.split())
    assert not site_lab.runs.exists()
    profile.write_text(PROFILE_TEXT.format(runs=site_lab.runs, words='account = "lab"'))
    assert main(["doctor", "--profile", str(profile)]) == 0


def test_what_a_limit_leaves_unsubmitted_is_told_and_resumed(site_lab: ClusterLab) -> None:
    profile = with_words(account="poor")
    stages = [stage(seed, "train", python("pass")) for seed in (1, 2, 3)]
    experiment = site_lab.register(stages, profile=profile)
    executor = site_lab.executor(experiment, profile)
    with pytest.raises(LaunchError, match="1 of 3 stages are in the queue and stay there") as error:
        submit_missing(experiment, executor)
    assert "slurm.account" in str(error.value)
    statuses = site_lab.wait_until_over(experiment, executor)
    states = [statuses[f"{seed}/train"].state for seed in (1, 2, 3)]
    assert states == [State.DONE, State.PLANNED, State.PLANNED]
    rich = site_lab.executor(experiment, with_words(account="lab"))
    assert len(submit_missing(experiment, rich)) == 2
    statuses = site_lab.wait_until_over(experiment, rich)
    assert {status.state for status in statuses.values()} == {State.DONE}
    assert {status.attempt for status in statuses.values()} == {1}


def test_a_job_that_a_limit_never_lets_start_says_which_one(site_lab: ClusterLab) -> None:
    profile = with_words(account="poor")
    two = dataclasses.replace(stage(1, "train", python("pass")).resources, gpus_per_node=2)
    wanting = dataclasses.replace(stage(1, "train", python("pass")), resources=two)
    experiment = site_lab.register([wanting], profile=profile)
    executor = site_lab.executor(experiment, profile)
    submit_missing(experiment, executor)
    site_lab.site.wait_until(
        lambda: (
            site_lab.statuses(experiment, executor)["1/train"].reason
            == "cannot start: the account's limit of GPUs is used up (AssocGrpGRES)"
        ),
        "the limit to be told",
    )
    assert site_lab.statuses(experiment, executor)["1/train"].state is State.WAITING


def test_launched_from_inside_a_job_nothing_of_that_job_reaches_ours(
    site_lab: ClusterLab, tmp_path: Path
) -> None:
    """A real job of eight CPUs and three GPUs submits; ours asks for one CPU and no GPU."""
    code = "import os\nfor name in sorted(os.environ): print(f'{name}={os.environ[name]}')"
    experiment = site_lab.register([stage(1, "train", python(code))])
    launch = tmp_path / "launch.py"
    launch.write_text(f"""
from pathlib import Path
from launcher.executors.choice import executor_of
from launcher.experiment import Experiment
from launcher.submit import submit_missing
experiment = Experiment.open(Path({str(experiment.paths.root)!r}))
submit_missing(experiment, executor_of(experiment))
""")
    root = Path(__file__).resolve().parents[2]
    outer = site_lab.site.call(
        "srun", "--exclusive", "-c8", "--gres=gpu:3", "--job-name=outer", "--mem=7000",
        "env", f"PYTHONPATH={root}", sys.executable, str(launch),
    )  # fmt: skip
    assert outer.returncode == 0, outer.stderr
    executor = site_lab.executor(experiment)
    assert site_lab.wait_until_over(experiment, executor)["1/train"].state is State.DONE
    lines = site_lab.log(experiment, "1/train").splitlines()
    env = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    assert env["SLURM_JOB_ID"] == site_lab.job_id(experiment, "1/train")
    assert env["SLURM_CPUS_PER_TASK"] == "1"
    assert env["SLURM_JOB_NAME"] != "outer"
    assert not env.get("CUDA_VISIBLE_DEVICES")
    assert env["SLURM_MEM_PER_NODE"] == "1024"
    assert os.environ["SLURM_CONF"] == env["SLURM_CONF"]
