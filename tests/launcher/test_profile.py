from __future__ import annotations

from pathlib import Path

import pytest

from golf.config import ConfigError, ContainerConfig
from launcher.profile import Profile, choose_container, load_profile, profile_from

TEXT = """
[site]
executor = "slurm"
[slurm]
partition = "gpu"
account = "golf"
setup = ["module load cuda"]
[slurm.sbatch]
nice = "100"
[container]
runtime = "pyxis"
image = "/shared/golf.sqsh"
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "site.toml"
    path.write_text(TEXT)
    return load_profile(path)


def test_a_profile_is_read_and_read_back_from_plain_values(profile: Profile) -> None:
    assert profile.slurm.setup == ("module load cuda",)
    assert profile.slurm.sbatch == {"nice": "100"}
    assert profile_from(profile.plain()) == profile


def test_the_user_s_own_profile_is_found_and_no_profile_means_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_profile(None).site.executor == "local"
    (tmp_path / "golf-launch").mkdir()
    (tmp_path / "golf-launch/profile.toml").write_text(TEXT)
    assert load_profile(None).slurm.account == "golf"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[slurm]\npartitoin = 'x'", "unknown key slurm.partitoin; did you mean partition"),
        ("[slrum]\n", r"unknown section \[slrum\]; did you mean slurm"),
        ("[site]\nexecutor = 'pbs'", "must be one of 'local', 'slurm'"),
        ("[slurm]\nmax_attempts = 0", "slurm.max_attempts must be at least 1"),
        ("[slurm.sbatch]\n'--nice' = '1'", "must be a long option without its dashes"),
    ],
)
def test_mistakes_name_the_fix(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_profile(path)


def test_the_command_line_s_container_comes_before_the_job_s_and_the_site_s(
    profile: Profile,
) -> None:
    own = ContainerConfig(runtime="apptainer", image="/a.sif")
    none = ContainerConfig()
    assert choose_container(none, profile, None, None) == profile.container
    assert choose_container(own, profile, None, None) == own
    assert choose_container(own, profile, "none", None).runtime == "none"
    assert choose_container(none, profile, None, "/b.sqsh").image == "/b.sqsh"
    with pytest.raises(ConfigError, match=r"needs container\.image"):
        choose_container(none, Profile(), "podman", None)
