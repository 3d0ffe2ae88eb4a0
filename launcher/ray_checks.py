"""Is there a Ray where an evaluation fans out? Asked before any time is spent, as far as it shows.

1. Without a container: in the interpreter that runs the jobs, where that is the launcher's own.
2. In an image that is a folder here: in the list of its contents, which its build leaves behind.
3. Elsewhere only a node can tell: `golf-launch doctor --job`.

And has each worker a core of its own?
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from golf.config import ContainerConfig, Job
from launcher.checks import Check, Verdict

CONTENTS = "opt/golf-launch/contents.txt"
"""Every package of an image and its version, as `containers/image-id.sh` writes it."""


def ray_checks(job: Job, python: str = "") -> tuple[Check, ...]:
    """A line on Ray, where the job wants it; `python` is the site's own interpreter, if any."""
    if not job.fanout.workers:
        return ()
    return (_ray(job.container, python), *_crowded(job))


def _crowded(job: Job) -> tuple[Check, ...]:
    """Workers that would share a core, and wait for each other in every step."""
    workers, cores = job.fanout.workers_per_node, job.resources.cpus_per_task
    if workers <= cores:
        return ()
    return (
        Check(
            name="workers",
            verdict=Verdict.WARN,
            figure=f"{workers} a node, on {cores} core{'s' if cores > 1 else ''}",
            fix=f"--set resources.cpus_per_task={workers} gives each one of its own",
        ),
    )


def _ray(container: ContainerConfig, python: str) -> Check:
    if container.runtime != "none":
        return _in_image(container)
    if python:
        return _told_by_doctor(python)
    if importlib.util.find_spec("ray") is None:
        fix = "install it beside golf-launch, as in pip install ray, or --set fanout.workers=0"
        return _fail("not installed here", fix)
    return Check(name="Ray", verdict=Verdict.OK, figure="installed")


def _in_image(container: ContainerConfig) -> Check:
    contents = Path(container.image) / CONTENTS
    try:
        lines = contents.read_text().splitlines()
    except OSError:
        return _told_by_doctor(container.image)
    version = next((line.partition("==")[2] for line in lines if line.startswith("ray==")), "")
    if not version:
        fix = "build the image anew from containers/, which adds it, or --set fanout.workers=0"
        return _fail(f"not in {container.image}", fix)
    return Check(name="Ray", verdict=Verdict.OK, figure=f"{version} in {container.image}")


def _told_by_doctor(where: str) -> Check:
    figure = f"wanted in {where}; golf-launch doctor --job tells whether it is there"
    return Check(name="Ray", verdict=Verdict.OK, figure=figure)


def _fail(figure: str, fix: str) -> Check:
    return Check(name="Ray", verdict=Verdict.FAIL, figure=figure, fix=fix)
