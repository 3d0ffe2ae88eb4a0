"""The cluster profile: everything that names a site or its user, so that a job file need not.

1. `--profile F`, or `profile.toml` in the user's configuration folder, or no profile.
2. Read strictly: an unknown key names the nearest right one.
3. Kept with the experiment, so that `attach` and `resume` ask the same site.

Without a profile the stages run on this machine.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from golf.config import ConfigError, ContainerConfig, Job
from golf.sections import build_sections, read_sections

ExecutorName = Literal["local", "slurm"]


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """`[site]`: where jobs go."""

    executor: ExecutorName = "local"
    runs: str = ""
    """Folder of experiments, seen by every node; `--runs` comes before it."""
    python: str = ""
    """Interpreter of jobs that run in no container; the launcher's own where it is empty."""


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """`[slurm]`: how this site wants its jobs submitted; what is empty is left to Slurm."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    exclude: str = ""
    reservation: str = ""
    mail_user: str = ""
    mail_type: str = ""
    exclusive: bool = False
    """Whole nodes."""
    gpu_type: str = ""
    """As in `--gpus-per-node=h100:8`."""
    request_memory: bool = True
    """Off where a site refuses `--mem`."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """More options of sbatch by their long names; an empty value is a plain flag."""
    srun: tuple[str, ...] = ()
    """More words for srun."""
    setup: tuple[str, ...] = ()
    """Shell lines before the stage, such as `module load`; one that fails ends the job."""
    signal_seconds: int = 120
    """Warning before the time limit, for a checkpoint; Slurm may send it a minute early."""
    max_attempts: int = 5
    """Starts of one job in all; preemption, node loss and the time limit cost one each."""
    poll_seconds: float = 10.0
    """Least time between two questions to Slurm; it grows while nothing changes."""
    slowest_poll_seconds: float = 60.0
    """The most it grows to."""
    array_from: int = 9
    """Stages of a kind from which they are submitted as one array."""

    def __post_init__(self) -> None:
        for name in ("signal_seconds", "max_attempts", "array_from"):
            if getattr(self, name) < 1:
                raise ConfigError(f"slurm.{name} must be at least 1")
        if self.poll_seconds <= 0:
            raise ConfigError("slurm.poll_seconds must be positive; sites want 10 or more")
        for name in self.sbatch:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise ConfigError(
                    f"slurm.sbatch.{name} must be a long option without its dashes, as in wckey"
                )


@dataclass(frozen=True, kw_only=True)
class AuthorConfig:
    """`[author]`: who signs a submission."""

    name: str = ""
    github_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A whole profile."""

    site: SiteConfig = SiteConfig()
    slurm: SlurmConfig = SlurmConfig()
    container: ContainerConfig = field(default_factory=ContainerConfig)
    """The site's way to run images, where neither job nor command line names one."""
    author: AuthorConfig = AuthorConfig()

    def plain(self) -> dict[str, Any]:
        """As nested plain values, which `profile_from` reads back."""
        plain: dict[str, Any] = dataclasses.asdict(self)
        return plain


def default_path() -> Path:
    """`golf-launch/profile.toml` in the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "golf-launch" / "profile.toml"


def load_profile(path: Path | None) -> Profile:
    """The profile at `path`, which must exist, or else the user's, or an empty one.

    Raises:
        ConfigError: it is missing, or not valid.
    """
    if path is None and not default_path().is_file():
        return Profile()
    path = path or default_path()
    return profile_from(read_sections(path, "profile"), str(path))


def profile_from(sections: Mapping[str, Any], where: str = "profile") -> Profile:
    """A profile from plain values.

    Raises:
        ConfigError: an unknown key or a value that cannot be.
    """
    return build_sections(Profile, sections, where)


def choose_container(
    asked: ContainerConfig, profile: Profile, runtime: str | None, image: str | None
) -> ContainerConfig:
    """The command line's container, or else the job's, or else the site's.

    Raises:
        ConfigError: a runtime without an image, or an unknown runtime.
    """
    base = asked if asked.runtime != "none" else profile.container
    if runtime is None and image is None:
        return base
    changed = dataclasses.asdict(base) | {"runtime": runtime or base.runtime}
    changed["image"] = image or base.image
    job = build_sections(Job, {"container": changed}, "--runtime")
    return job.container
