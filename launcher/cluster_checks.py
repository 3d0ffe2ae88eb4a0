"""What can be known of a launch on a cluster before any time is spent there.

1. Seeds and data, as for any launch.
2. The site: sbatch is here, the runs lie where nodes see them.
3. The container: a runtime has an image, and the image's name can serve.
4. Each kind of job as Slurm judges it: `sbatch --test-only` says when it would start, or why never.
"""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from golf.config import ContainerConfig
from launcher.checks import Check, Verdict, common_checks
from launcher.executors.slurm_refusals import fix_of
from launcher.plan import Plan
from launcher.profile import SlurmConfig
from launcher.runtimes import runtime_of, stage_mounts

LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders that every node has for itself."""
CALL_LIMIT_S = 30.0
EARLY_S = 60
"""Slurm may send its warning as much earlier."""
USABLE = frozenset({"idle", "mixed", "allocated", "completing", "planned"})
"""States of nodes that run jobs, now or after those that they have."""


def check_cluster_plan(
    plan: Plan, slurm: SlurmConfig, tests: Callable[[], Sequence[tuple[str, str]]]
) -> tuple[Check, ...]:
    """Every check of a plan on the profile's site.

    `tests` gives, for each kind of job, what `sbatch --test-only` says of it.
    """
    checks = [
        *common_checks(plan),
        _gpu_hours(plan),
        *_warning(plan, slurm),
        _shared(plan),
        check_container(plan.job.container, plan.paths.root.parent, str(plan.data)),
    ]
    if shutil.which("sbatch") is None:
        fix = 'run golf-launch on a login node, or set site.executor = "local" in the profile'
        figure = "sbatch is not on this machine"
        return (*checks, Check(name="Slurm", verdict=Verdict.FAIL, figure=figure, fix=fix))
    return (*checks, *(_test(kind, words, slurm) for kind, words in tests()))


def gpu_hours(plan: Plan) -> float:
    """GPU hours by which the time limits end every stage."""
    return sum(
        stage.resources.nodes * stage.resources.gpus_per_node * stage.resources.time_minutes / 60
        for stage in plan.stages
    )


def _gpu_hours(plan: Plan) -> Check:
    hours = gpu_hours(plan)
    figure = f"{hours:g} hours at most, by the time limits" if hours else "none needed"
    return Check(name="GPUs", verdict=Verdict.OK, figure=figure)


def _warning(plan: Plan, slurm: SlurmConfig) -> list[Check]:
    """A job that is warned as it starts would go back to the queue again and again."""
    shortest_s = 60 * min(stage.resources.time_minutes for stage in plan.stages)
    if shortest_s > slurm.signal_seconds + EARLY_S:
        return []
    figure = (
        f"jobs of {shortest_s / 60:g} min are warned {slurm.signal_seconds} s ahead of their end, "
        "or a minute earlier: before they have done anything"
    )
    fix = "raise resources.time_minutes, or lower slurm.signal_seconds in the profile"
    return [Check(name="time", verdict=Verdict.FAIL, figure=figure, fix=fix)]


def _shared(plan: Plan) -> Check:
    runs = plan.paths.root.parent
    if any(runs.is_relative_to(folder) for folder in LOCAL_FOLDERS):
        return Check(
            name="shared",
            verdict=Verdict.WARN,
            figure=f"{runs} is usually a folder of this machine alone",
            fix="put the runs where every node sees them: --runs DIR, or site.runs in the profile",
        )
    return Check(name="shared", verdict=Verdict.OK, figure=str(runs))


def check_container(container: ContainerConfig, runs: Path, data: str = "") -> Check:
    """Whether the image that is named can serve stages that read and write these folders."""
    if container.runtime == "none":
        return Check(name="container", verdict=Verdict.OK, figure="none")
    runtime = runtime_of(container.runtime)
    figure = f"{container.runtime}, {container.image}"
    problem = runtime.problem_with(container.image)
    path = Path(container.image)
    if not problem and path.is_absolute() and not path.exists():
        problem = f"{container.image} does not exist on this machine"
    mounts = stage_mounts(runs, data, container)
    problem = problem or runtime.problem_with_mounts(container.image, mounts)
    if problem:
        fix = f"{problem}; containers/README.md tells how to make {runtime.image_hint}"
        return Check(name="container", verdict=Verdict.FAIL, figure=figure, fix=fix)
    return Check(name="container", verdict=Verdict.OK, figure=figure)


def _test(kind: str, words: str, slurm: SlurmConfig) -> Check:
    """sbatch's own verdict on a kind of job."""
    start = estimate(words)
    if start:
        return Check(name=f"{kind} job", verdict=Verdict.OK, figure=start)
    said = " ".join(words.split()) or "sbatch --test-only says nothing"
    down = nodes_down(slurm.partition) if "node configuration" in said else ""
    if down:
        return Check(
            name=f"{kind} job",
            verdict=Verdict.WARN,
            figure=f"Slurm gives no estimate, because {down}",
            fix="nothing, if that is a maintenance: the jobs wait for its end",
        )
    known = fix_of(said, slurm)
    fix = known or "golf-launch doctor shows what the site has"
    return Check(name=f"{kind} job", verdict=Verdict.FAIL, figure=said, fix=fix)


def estimate(words: str) -> str:
    """When and where sbatch would start a job, out of its words."""
    found = re.search(r"to start at (\S+) using (\d+) processors on nodes (\S+)", words)
    if found is None:
        return ""
    start, num_cpus, nodes = found.groups()
    return f"would start at {start.replace('T', ' ')} with {num_cpus} CPUs on {nodes}"


def nodes_down(partition: str) -> str:
    """How the nodes of a partition stand, if not one of them can take a job now."""
    words = ["sinfo", "--noheader", "--format=%D %T"]
    words += [f"--partition={partition}"] if partition else []
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=CALL_LIMIT_S)
    counts: collections.Counter[str] = collections.Counter()
    for line in done.stdout.splitlines():
        number, state = line.split()
        if state.rstrip("~#%^$+-@!") in USABLE:  # marks of power saving and reboots
            return ""
        counts[state] += int(number)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    return f"no node of {partition or 'any partition'} can take a job now: {told}" if told else ""
