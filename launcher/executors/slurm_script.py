"""The batch script of a job: submitit's header, then ours.

1. Parameters, as submitit names them, from the stage's resources and the site's profile.
2. The command line of the step: srun, the container's runtime, `golf stage`; on several nodes one
   task each, of which the first runs the stage.
3. `slurm_batch.sh`, as it is, below the values that it needs.

submitit makes the header and gives the script to sbatch. The rest is ours, because submitit's own
job side requeues from inside the task, which a container cannot; because its early signal reaches
the task and not this script; and because it runs a pickle, which ties the image to our Python.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from golf.config import ContainerConfig
from launcher.executors.slurm_batches import Batch
from launcher.experiment import ExperimentPaths
from launcher.profile import Profile, SlurmConfig
from launcher.runtimes import Contained, runtime_of, stage_mounts
from launcher.stage import Stage

IMAGE_PYTHON = "python3"
"""Inside an image; outside it is the profile's or the launcher's own."""
ONE_NODE = ("golf", "stage")
SEVERAL_NODES = ("launcher.fanout.task",)
"""One task a node: the first runs the stage, the others lend their nodes to it."""
PASSED = ("SLURM_PROCID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME")
"""What tells a task which it is."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What all batches of an experiment have in common."""

    paths: ExperimentPaths
    container: ContainerConfig
    data: str
    profile: Profile


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Jobs that must have succeeded before a batch may start."""

    jobs: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    """Of these, each task of the batch waits for the task of the same number."""

    def words(self) -> str:
        kinds = {"afterok": self.jobs, "aftercorr": self.arrays}
        return ",".join(f"{kind}:{':'.join(ids)}" for kind, ids in kinds.items() if ids)


def needs_of(batch: Batch, ids: Mapping[str, str]) -> Needs:
    """What a batch waits for, given the job ids of what is in the queue."""
    waited = [ids[key] for stage in batch.stages for key in stage.after if key in ids]
    if not batch.is_array:
        return Needs(jobs=tuple(dict.fromkeys(waited)))
    return Needs(
        jobs=tuple(dict.fromkeys(job for job in waited if "_" not in job)),
        arrays=tuple(dict.fromkeys(job.partition("_")[0] for job in waited if "_" in job)),
    )


def parameters(launch: Launch, batch: Batch, needs: Needs) -> dict[str, Any]:
    """What submitit's executor is told of a batch; None and "" leave it to Slurm."""
    slurm, wanted = launch.profile.slurm, batch.stages[0].resources
    output = str(launch.paths.jobs / f"{batch.label}-{'%A_%a' if batch.is_array else '%j'}.out")
    gpus = ":".join(filter(None, [slurm.gpu_type, str(wanted.gpus_per_node)]))
    given: dict[str, Any] = {
        "job_name": batch.name,
        "comment": _comment(batch),
        "time": wanted.time_minutes,
        "nodes": wanted.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": wanted.cpus_per_task,
        "mem": f"{wanted.mem_gb}GB" if slurm.request_memory else None,
        "gpus_per_node": gpus if wanted.gpus_per_node else None,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": slurm.exclude,
        "mail_user": slurm.mail_user,
        "mail_type": slurm.mail_type,
        "exclusive": slurm.exclusive or None,
        "dependency": needs.words(),
        "stderr_to_stdout": True,
        "use_srun": False,  # ours stands in the script
        "array_parallelism": len(batch.stages),
        "additional_parameters": _additional(output, slurm),
    }
    return {key: value for key, value in given.items() if value not in (None, "")}


def _additional(output: str, slurm: SlurmConfig) -> dict[str, Any]:
    """Options that submitit has no name for, or would set otherwise."""
    more: dict[str, Any] = {
        "output": output,
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "signal": f"B:USR2@{slurm.signal_seconds}",
    }
    if slurm.reservation:
        more["reservation"] = slurm.reservation
    return more | {name: value or True for name, value in slurm.sbatch.items()}


def _comment(batch: Batch) -> str:
    stage = batch.stages[0]
    seeds = ",".join(str(stage.seed) for stage in batch.stages if stage.seed is not None)
    return f"golf-launch {stage.kind}{f' of seed {seeds}' if seeds else ''}"[:250]


def common_part() -> str:
    """The end of every script."""
    return resources.files("launcher.executors").joinpath("slurm_batch.sh").read_text()


def body(launch: Launch, batch: Batch) -> str:
    """Everything below the header."""
    stage, slurm = batch.stages[0], launch.profile.slurm
    folders = [str(launch.paths.stage(member.key).root) for member in batch.stages]
    env = _env(launch)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    if not stage.resources.gpus_per_node:
        exports.append("export CUDA_VISIBLE_DEVICES=  # not those of the shell that launched")
    setup = slurm.setup or (":",)
    lines = [
        f"name={shlex.quote(batch.name)}",
        f"max_attempts={slurm.max_attempts}",
        "folders=(",
        *(f"  {shlex.quote(folder)}" for folder in folders),
        ")",
        "command=(",
        *(f"  {line}" for line in _command(launch, stage, env)),
        ")",
        "setup() {",
        *(f"  {line}" for line in setup),
        "}",
        *exports,
        f"cd {shlex.quote(str(launch.paths.code))}",
        "",
    ]
    return "\n".join(lines) + "\n" + common_part()


def _env(launch: Launch) -> dict[str, str]:
    """The stage runs the snapshot; the user's own site-packages stay out."""
    return {"PYTHONPATH": str(launch.paths.code), "PYTHONNOUSERSITE": "1"}


def _command(launch: Launch, stage: Stage, env: dict[str, str]) -> list[str]:
    """Words of the step, one group a line; the stage's folder is added as the last word."""
    container = launch.container
    runtime = runtime_of(container.runtime)
    own = launch.profile.site.python or sys.executable
    python = own if container.runtime == "none" else IMAGE_PYTHON
    contained = Contained(
        argv=(python, "-m", *(ONE_NODE if stage.resources.nodes == 1 else SEVERAL_NODES)),
        image=container.image,
        mounts=stage_mounts(launch.paths.root.parent, launch.data, container),
        env=env | container.env,
        passed=PASSED if stage.resources.nodes > 1 else (),
        num_gpus=stage.resources.gpus_per_node,
    )
    wanted = stage.resources
    size = (f"--nodes={wanted.nodes}", f"--ntasks={wanted.nodes}", "--ntasks-per-node=1")
    # Since 22.05 a step no longer takes --cpus-per-task from its job.
    task = (f"--cpus-per-task={wanted.cpus_per_task}", "--kill-on-bad-exit=1", "--unbuffered")
    groups: Sequence[Sequence[str]] = (
        ("srun", *size, *task),
        launch.profile.slurm.srun,
        runtime.srun_words(contained),
        runtime.argv(contained),
    )
    return [shlex.join(group) for group in groups if group]
