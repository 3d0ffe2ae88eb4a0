"""Container runtimes: each turns a command into what srun has to run.

1. `runtime_of` picks the class by its name in `container.runtime`.
2. Folders of the launch are mounted under their own paths, so that paths in `stage.json` hold
   inside as outside; what the job or the profile mounts comes after them.
3. Inside, a command is started by the image's own entry point. It exists nowhere but in the
   images built from `containers/`, so that a command cannot run beside its image unnoticed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

from golf.config import ConfigError, ContainerConfig

ENTRYPOINT = "/opt/golf-launch/entrypoint.sh"
"""Where `containers/` puts it; it tells which image this is and gives way to its arguments."""


@dataclass(frozen=True, kw_only=True)
class Contained:
    """A command and the container it wants."""

    argv: tuple[str, ...]
    image: str = ""
    mounts: tuple[str, ...] = ()
    """`/host:/inside` pairs."""
    env: Mapping[str, str] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    """Variables that the command reads with the values they have when it starts."""
    num_gpus: int = 0


class Runtime(ABC):
    """One way to run a command in an image."""

    name: ClassVar[str]
    program: ClassVar[str] = ""
    """What must be installed on a node; nothing for a plugin of Slurm."""
    image_hint: ClassVar[str] = ""

    def srun_words(self, wanted: Contained) -> tuple[str, ...]:
        """Options that srun takes for it."""
        return ()

    @abstractmethod
    def argv(self, wanted: Contained) -> tuple[str, ...]:
        """The command line of the task."""

    def problem_with(self, image: str) -> str:
        """Why an image's name cannot serve here, or nothing."""
        return ""

    def problem_with_mounts(self, image: str, mounts: Sequence[str]) -> str:
        """Why `/host:/inside` pairs cannot be mounted, as far as this machine can tell."""
        return ""


class NoContainer(Runtime):
    """The command as it is."""

    name = "none"

    def argv(self, wanted: Contained) -> tuple[str, ...]:
        return wanted.argv


class Pyxis(Runtime):
    """NVIDIA's plugin of Slurm over enroot; srun itself enters the image."""

    name = "pyxis"
    image_hint = "an absolute path of a .sqsh file, made once by enroot import"

    def srun_words(self, wanted: Contained) -> tuple[str, ...]:
        words = [f"--container-image={wanted.image}", "--no-container-mount-home"]
        if wanted.mounts:
            words.append(f"--container-mounts={','.join(wanted.mounts)}")
        if wanted.env:
            # Without this the image's own values of these variables would win.
            words.append(f"--container-env={','.join(wanted.env)}")
        return tuple(words)

    def argv(self, wanted: Contained) -> tuple[str, ...]:
        return (ENTRYPOINT, *wanted.argv)

    def problem_with(self, image: str) -> str:
        if image.endswith(".sqsh") and not PurePosixPath(image).is_absolute():
            return f"pyxis takes {image} for a registry's name; give {self.image_hint}"
        return ""


class Apptainer(Runtime):
    """Apptainer or Singularity; unprivileged, one file an image."""

    name = program = "apptainer"
    image_hint = "a .sif file"

    def argv(self, wanted: Contained) -> tuple[str, ...]:
        words = ["apptainer", "exec", "--no-home"]
        if wanted.num_gpus:
            words.append("--nv")
        words += [f"--bind={mount}" for mount in wanted.mounts]
        words += [f"--env={name}={value}" for name, value in wanted.env.items()]
        return (*words, wanted.image, ENTRYPOINT, *wanted.argv)


class Charliecloud(Runtime):
    """Charliecloud; unprivileged, an image is a folder or a SquashFS file."""

    name = "charliecloud"
    program = "ch-run"
    image_hint = "a folder made by ch-convert, or a .sqfs file"

    def problem_with_mounts(self, image: str, mounts: Sequence[str]) -> str:
        """ch-run makes no folders in an image, which is read-only."""
        root = Path(image)
        inside = [mount.rpartition(":")[2].lstrip("/") for mount in mounts]
        absent = [
            str(root / path) for path in inside if root.is_dir() and not (root / path).exists()
        ]
        return (
            f"folders to mount on are not in the image; mkdir -p {' '.join(absent)}"
            if absent
            else ""
        )

    def argv(self, wanted: Contained) -> tuple[str, ...]:
        words = ["ch-run"]
        words += [f"--bind={mount}" for mount in wanted.mounts]
        words += [f"--set-env={name}={value}" for name, value in wanted.env.items()]
        return (*words, wanted.image, "--", ENTRYPOINT, *wanted.argv)


class Podman(Runtime):
    """Podman without root; signals reach the command through it."""

    name = program = "podman"
    image_hint = "a name that podman images shows on every node"
    gpu_words: ClassVar[tuple[str, ...]] = (
        "--device=nvidia.com/gpu=all",
        "--env=CUDA_VISIBLE_DEVICES",
    )
    user_words: ClassVar[tuple[str, ...]] = ("--userns=keep-id",)

    def argv(self, wanted: Contained) -> tuple[str, ...]:
        words = [self.program, "run", "--rm", "--network=host", "--ipc=host", *self.user_words]
        if wanted.num_gpus:
            words += self.gpu_words
        words += [f"--volume={mount}" for mount in wanted.mounts]
        words += [f"--env={name}={value}" for name, value in wanted.env.items()]
        words += [f"--env={name}" for name in wanted.passed]  # others hand all of them on
        return (*words, f"--entrypoint={ENTRYPOINT}", wanted.image, *wanted.argv)


class Docker(Podman):
    """Docker, where a site lets its users run it."""

    name = program = "docker"
    image_hint = "a name that docker images shows on every node"
    gpu_words = ("--gpus=all", "--env=CUDA_VISIBLE_DEVICES")
    user_words = ()


RUNTIMES: dict[str, type[Runtime]] = {
    cls.name: cls for cls in (NoContainer, Pyxis, Apptainer, Charliecloud, Podman, Docker)
}


def runtime_of(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RUNTIMES:
        raise ConfigError(f"container.runtime={name!r} must be one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]()


def stage_mounts(runs: Path, data: str, container: ContainerConfig) -> tuple[str, ...]:
    """What a stage reads and writes: all runs, data that lie elsewhere, and what the job asks for.

    Not the experiment alone: some runtimes need the folder to exist in the image.
    """
    return (*same_path([str(runs), *filter(None, [data])]), *container.mounts)


def same_path(folders: Sequence[str]) -> tuple[str, ...]:
    """Mounts that keep folders where they are; one below another needs none of its own."""
    chosen: list[str] = []
    for folder in sorted(set(folders)):
        if not any(PurePosixPath(folder).is_relative_to(other) for other in chosen):
            chosen.append(folder)
    return tuple(f"{folder}:{folder}" for folder in chosen)
