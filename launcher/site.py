"""Where a plan would run, asked before anything is written: its checks and its exact scripts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Protocol

from launcher.checks import Check, Verdict, check_plan
from launcher.plan import Plan
from launcher.profile import Profile, default_path
from launcher.ray_checks import ray_checks


class Site(Protocol):
    """A place that can judge a plan."""

    def checks(self, plan: Plan) -> tuple[Check, ...]:
        """Every check, each with its verdict."""

    def scripts(self, plan: Plan) -> Iterator[str]:
        """What would be submitted beside the command lines."""


def site_of(profile: Profile) -> Site:
    """The site that the profile names."""
    return SlurmSite(profile) if profile.site.executor == "slurm" else ThisMachine()


class ThisMachine:
    """Stages as processes of this machine."""

    def checks(self, plan: Plan) -> tuple[Check, ...]:
        from launcher.machine import this_machine

        checks = (*check_plan(plan, this_machine()), *ray_checks(plan.job))
        if shutil.which("sbatch") is None:
            return checks
        return (
            *checks,
            Check(
                name="Slurm",
                verdict=Verdict.WARN,
                figure="sbatch is here, but no profile asks for it; stages run on this machine",
                fix=f'write {default_path()} with [site] executor = "slurm" and what the site '
                "wants in [slurm], or name one with --profile",
            ),
        )

    def scripts(self, plan: Plan) -> Iterator[str]:
        yield from ()


class SlurmSite:
    """A cluster, through submitit and sbatch."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def checks(self, plan: Plan) -> tuple[Check, ...]:
        from launcher.cluster_checks import check_cluster_plan

        checks = check_cluster_plan(plan, self._profile.slurm, lambda: list(self._tests(plan)))
        return (*checks, *ray_checks(plan.job, self._profile.site.python))

    def scripts(self, plan: Plan) -> Iterator[str]:
        """One of each kind; what is the same in all of them stands in the first only."""
        from launcher.executors.slurm_script import common_part

        common = common_part().strip()
        for number, (kind, text, _) in enumerate(self._rendered(plan)):
            if number:
                assert common in text
                text = text.replace(common, "# ... and from here on as in the first script")
            article = "an" if kind[0] in "aeiou" else "a"
            yield f"\n# ---- sbatch script of {article} {kind} job ----\n{text.strip()}"

    def _tests(self, plan: Plan) -> Iterator[tuple[str, str]]:
        for kind, _, test in self._rendered(plan):
            yield kind, test

    def _rendered(self, plan: Plan) -> Sequence[tuple[str, str, str]]:
        """Kind, script and Slurm's verdict of the first batch of each kind."""
        from launcher.executors.slurm_batches import make_batches
        from launcher.executors.slurm_queue import array_limit
        from launcher.executors.slurm_script import Launch
        from launcher.executors.slurm_submit import render

        launch = Launch(
            paths=plan.paths,
            container=plan.job.container,
            data=str(plan.data),
            profile=self._profile,
        )
        array_from = self._profile.slurm.array_from
        many = len(plan.stages) >= array_from and shutil.which("scontrol") is not None
        max_array = array_limit() if many else len(plan.stages)
        batches = make_batches(plan.paths, plan.stages, array_from, max_array)
        firsts = {batch.stages[0].kind: batch for batch in reversed(batches)}
        return [(kind, *render(launch, batch)) for kind, batch in reversed(firsts.items())]
