"""What each runtime makes of one command; the runtimes themselves are not started here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from golf.config import ConfigError
from launcher.runtimes import ENTRYPOINT, Contained, runtime_of, same_path

WANTED = Contained(
    argv=("python3", "-m", "golf", "stage"),
    image="/images/golf",
    mounts=("/runs:/runs", "/data:/data"),
    env={"PYTHONPATH": "/runs/code"},
    num_gpus=8,
)
GOLDEN = {
    "none": "python3 -m golf stage",
    "pyxis": f"{ENTRYPOINT} python3 -m golf stage",
    "apptainer": "apptainer exec --no-home --nv --bind=/runs:/runs --bind=/data:/data "
    f"--env=PYTHONPATH=/runs/code /images/golf {ENTRYPOINT} python3 -m golf stage",
    "charliecloud": "ch-run --bind=/runs:/runs --bind=/data:/data "
    f"--set-env=PYTHONPATH=/runs/code /images/golf -- {ENTRYPOINT} python3 -m golf stage",
    "podman": "podman run --rm --network=host --ipc=host --userns=keep-id "
    "--device=nvidia.com/gpu=all --env=CUDA_VISIBLE_DEVICES --volume=/runs:/runs "
    f"--volume=/data:/data --env=PYTHONPATH=/runs/code --entrypoint={ENTRYPOINT} /images/golf "
    "python3 -m golf stage",
    "docker": "docker run --rm --network=host --ipc=host --gpus=all --env=CUDA_VISIBLE_DEVICES "
    "--volume=/runs:/runs --volume=/data:/data --env=PYTHONPATH=/runs/code "
    f"--entrypoint={ENTRYPOINT} /images/golf python3 -m golf stage",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_runtime_turns_a_command_into_an_argv(name: str) -> None:
    assert " ".join(runtime_of(name).argv(WANTED)) == GOLDEN[name]


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_runtime_that_hides_the_environment_hands_on_what_tells_a_task_its_place(
    name: str,
) -> None:
    words = runtime_of(name).argv(dataclasses.replace(WANTED, passed=("SLURM_PROCID",)))
    assert "--env=SLURM_PROCID" in words[: words.index("/images/golf")]


def test_pyxis_speaks_to_srun() -> None:
    assert runtime_of("pyxis").srun_words(WANTED) == (
        "--container-image=/images/golf",
        "--no-container-mount-home",
        "--container-mounts=/runs:/runs,/data:/data",
        "--container-env=PYTHONPATH",
    )
    assert runtime_of("docker").srun_words(WANTED) == ()


def test_pyxis_refuses_a_file_that_it_would_take_for_a_registry_s_name() -> None:
    assert "absolute path" in runtime_of("pyxis").problem_with("golf.sqsh")
    assert runtime_of("pyxis").problem_with("/shared/golf.sqsh") == ""


def test_an_unknown_runtime_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="one of none, pyxis, apptainer"):
        runtime_of("lxc")


def test_a_folder_below_a_mounted_one_needs_no_mount_of_its_own() -> None:
    assert same_path(["/runs/a/data", "/runs/a", "/data"]) == ("/data:/data", "/runs/a:/runs/a")


def test_charliecloud_names_the_folders_that_an_image_lacks_for_its_mounts(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    charliecloud = runtime_of("charliecloud")
    assert charliecloud.problem_with_mounts(str(tmp_path), ["/runs:/runs"]) == ""
    problem = charliecloud.problem_with_mounts(str(tmp_path), ["/runs:/runs", "/d:/data/in"])
    assert problem.endswith(f"mkdir -p {tmp_path}/data/in")
    assert charliecloud.problem_with_mounts("/images/golf.sqfs", ["/d:/data"]) == ""
