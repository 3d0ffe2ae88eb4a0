"""Is this site ready for golf-launch? One line each, with the fix.

1. Slurm's commands, its controller, and whether it keeps accounts.
2. The profile's partition: known, up, its limits, its GPUs.
3. Whether Slurm would take a small job with all that the profile names.
4. The folder of the runs: writable, and not this machine's alone.
5. The container: its runtime, its image, and where folders are mounted in it.

What only a node can tell (does it see the folder, has it the runtime, what is in the image) is told
by a job of a minute, which `--job` submits.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from golf.config import ContainerConfig
from launcher.checks import Check, Verdict
from launcher.cluster_checks import LOCAL_FOLDERS, check_container, estimate, nodes_down
from launcher.executors.slurm_refusals import fix_of
from launcher.profile import Profile, default_path
from launcher.runtimes import ENTRYPOINT, Contained, runtime_of, same_path

CALL_LIMIT_S = 30.0
JOB_LIMIT_S = 300.0
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NODE_SCRIPT = """
set -u
python=$1; runs=$2
echo "host $(hostname)"
touch "$runs/.doctor" && rm "$runs/.doctor" && echo "writable yes"
"$python" -c 'import sys; print("python", sys.version.split()[0])'
"$python" -c 'import torch; print("torch", torch.__version__, torch.version.cuda)' 2>/dev/null
"$python" -c 'import ray; print("ray", ray.__version__)' 2>/dev/null
echo "gpus ${CUDA_VISIBLE_DEVICES:-none}"
echo "image ${GOLF_IMAGE:-none}"
"""


def diagnose(profile: Profile, runs: Path) -> Iterator[Check]:
    """What can be told without a job."""
    if profile.site.executor != "slurm":
        yield Check(
            name="profile",
            verdict=Verdict.WARN,
            figure="no profile asks for Slurm; stages run on this machine",
            fix=f'write {default_path()} with [site] executor = "slurm"',
        )
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    if absent:
        yield _fail("commands", f"{', '.join(absent)} not found", "run it on a login node")
        return
    yield _ok("commands", ", ".join(COMMANDS))
    ping = _call("scontrol", "ping")
    if ping.returncode != 0:
        yield _fail("controller", _first(ping), "wait for it, or ask the site's support")
        return
    yield _ok("controller", " ".join(ping.stdout.split()))
    yield _accounting()
    yield _partition(profile)
    yield _submission(profile)
    yield _runs(runs)
    yield _container(profile, runs)


def _accounting() -> Check:
    done = _call("sacct", "--noheader", "--starttime=now-1minutes")
    if done.returncode == 0:
        return _ok("accounting", "sacct answers")
    return Check(
        name="accounting",
        verdict=Verdict.WARN,
        figure=f"no: {_first(done)}",
        fix="nothing to do; states come from result files and squeue, and a job that ended while "
        "nobody watched is told by its files alone",
    )


def _partition(profile: Profile) -> Check:
    rows = [
        line.split("|")
        for line in _call("sinfo", "--noheader", "--format=%P|%a|%l|%D|%G").stdout.splitlines()
    ]
    wanted = profile.slurm.partition
    names = [row[0] for row in rows]
    default = next((name for name in names if name.endswith("*")), "")
    row = next((row for row in rows if row[0].rstrip("*") == (wanted or default[:-1])), None)
    if row is None:
        known = ", ".join(name.rstrip("*") for name in names)
        what = f"no partition {wanted!r}" if wanted else "no default partition"
        return _fail("partition", what, f"set slurm.partition in the profile to one of: {known}")
    figure = f"{row[0].rstrip('*')} {row[1]}, {row[3]} nodes, {row[2]} at most, GPUs {row[4]}"
    if row[1] != "up":
        return _fail("partition", figure, "choose another in slurm.partition, or wait")
    return _ok("partition", figure)


def _submission(profile: Profile) -> Check:
    """Whether Slurm would take a small job with all that the profile names."""
    words = ["sbatch", "--test-only", "--nodes=1", "--time=1", *_options(profile)]
    done = _call(*words, "--wrap=true")
    told = " ".join(done.stderr.split())
    if done.returncode == 0:
        return _ok("submission", f"a small job {estimate(told)}")
    down = nodes_down(profile.slurm.partition) if "node configuration" in told else ""
    if down:
        fix = "wait until they are back"
        return Check(name="submission", verdict=Verdict.WARN, figure=down, fix=fix)
    fix = fix_of(told, profile.slurm) or f"try it by hand: {shlex.join(words)} --wrap=true"
    return _fail("submission", told, fix)


def _options(profile: Profile) -> list[str]:
    """Options of sbatch and srun for what the profile names of the site."""
    slurm = profile.slurm
    names = ("partition", "account", "qos", "constraint", "exclude", "reservation")
    given = {name: str(getattr(slurm, name)) for name in names} | slurm.sbatch
    flags = [f"--{name}" for name, value in slurm.sbatch.items() if not value]
    return [f"--{name}={value}" for name, value in given.items() if value] + flags


def _runs(runs: Path) -> Check:
    folder = next(path for path in (runs, *runs.parents) if path.exists())
    if not os.access(folder, os.W_OK):
        return _fail("runs", f"{folder} cannot be written", "set site.runs in the profile")
    if any(runs.is_relative_to(local) for local in LOCAL_FOLDERS):
        fix = "set site.runs in the profile to a folder that nodes share"
        return Check(name="runs", verdict=Verdict.WARN, figure=f"{runs} is local", fix=fix)
    return _ok("runs", str(runs))


def _container(profile: Profile, runs: Path) -> Check:
    if profile.container.runtime == "none":
        return _ok("container", f"none; jobs run {profile.site.python or sys.executable}")
    return check_container(profile.container, runs)


def run_job(profile: Profile, runs: Path) -> Iterator[Check]:
    """Ask a node, by a job of a minute; waits for it."""
    runs.mkdir(parents=True, exist_ok=True)
    container = profile.container
    runtime = runtime_of(container.runtime)
    python = "python3" if container.runtime != "none" else profile.site.python or sys.executable
    contained = Contained(
        argv=("sh", "-c", NODE_SCRIPT, "doctor", python, str(runs)),
        image=container.image,
        mounts=(*same_path([str(runs)]), *container.mounts),
        env=container.env,
    )
    words = ["srun", "--job-name=golf-launch-doctor", "--nodes=1", "--ntasks=1", "--time=1"]
    words += _options(profile)
    words += [*profile.slurm.srun, *runtime.srun_words(contained), *runtime.argv(contained)]
    done = _call(*words, limit_s=JOB_LIMIT_S)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    if "host" not in told:
        hint = f"; the image must have {ENTRYPOINT}" if container.runtime != "none" else ""
        yield _fail("job", _first(done), f"try it by hand: {' '.join(words[:5])} hostname{hint}")
        return
    yield _ok("job", f"ran on {told['host']}, GPUs {told.get('gpus', 'none')}")
    if "writable" in told:
        yield _ok("runs on a node", f"{runs} can be written")
    else:
        yield _fail("runs on a node", f"{runs} cannot be written", "set site.runs to a shared one")
    here = sys.version.split()[0]
    figure = f"python {told.get('python', 'missing')} on the node, {here} here"
    yield _ok("python", figure) if "python" in told else _fail("python", figure, "see site.python")
    if "torch" in told:
        yield _ok("torch", told["torch"])
    else:
        yield _fail("torch", "cannot be imported there", "see site.python, or use an image")
    if "ray" in told:
        yield _ok("Ray", told["ray"])
    else:
        fix = (
            "only evaluations with fanout.workers need it; see site.python, or build the image anew"
        )
        figure = "cannot be imported there"
        yield Check(name="Ray", verdict=Verdict.WARN, figure=figure, fix=fix)
    if container.runtime != "none":
        yield _image(container, told.get("image", "none"))


def _image(container: ContainerConfig, found: str) -> Check:
    """Which image it was, against the one that the profile wants."""
    if container.image_id not in ("", found):
        figure = f"{found}, and the profile wants {container.image_id}"
        fix = "put the right image there, or mend container.image_id in the profile"
        return _fail("image", figure, fix)
    hint = "" if container.image_id else "; as container.image_id, every stage would check it"
    return _ok("image", f"{found}{hint}")


def _call(*words: str, limit_s: float = CALL_LIMIT_S) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            env={"USER": getpass.getuser(), **os.environ},  # Charliecloud wants it
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]} is not installed")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"no answer in {limit_s:.0f} s")


def _first(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[0] if lines else f"exit code {done.returncode}"


def _ok(name: str, figure: str) -> Check:
    return Check(name=name, verdict=Verdict.OK, figure=figure)


def _fail(name: str, figure: str, fix: str) -> Check:
    return Check(name=name, verdict=Verdict.FAIL, figure=figure, fix=fix)
