"""golf-launch [run] JOB --seeds ...: plan, submit, watch, collect, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import TYPE_CHECKING

from golf.config import Job, load_job
from launcher.commands import arguments as shared
from launcher.errors import LaunchError

if TYPE_CHECKING:
    from launcher.experiment import Experiment
    from launcher.plan import Plan
    from launcher.profile import Profile
    from launcher.reporting.policy import Policy

COMMAND_WORDS = (
    "plan",
    "attach",
    "status",
    "logs",
    "cancel",
    "resume",
    "collect",
    "report",
    "compare",
    "submission",
    "list",
    "doctor",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_job(parser)
    shared.add_baseline(parser)
    shared.add_json(parser, "events as JSON lines instead of the dashboard")
    shared.add_sweep(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    parser.add_argument("--detach", action="store_true", help="start the jobs and do not watch")


def main(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from launcher import plan_text
    from launcher.checks import Verdict, check_variants, refused
    from launcher.commands.attach import submit_and_watch
    from launcher.reporting.forecast import forecast
    from launcher.site import site_of

    plan, profile = _make(arguments)
    policy = _registered_policy(arguments)
    site = site_of(profile)
    checks = check_variants(plan, lambda one: (*site.checks(one), *forecast(one, policy)))
    if arguments.json:
        print(json.dumps({"event": "plan", "time": time.time(), **plan_text.plain(plan, checks)}))
    else:
        Console().print(plan_text.draw(plan, checks))
        if arguments.dry_run:
            print("", *plan_text.command_lines(plan), sep="\n")
            print(*site.scripts(plan), sep="\n")
    if refused(checks):
        failed = [check.name for check in checks if check.verdict is Verdict.FAIL]
        raise LaunchError(f"nothing was started; see above: {', '.join(failed)}")
    if arguments.dry_run:
        return 0
    experiment = _register(arguments, plan, profile, policy)
    return submit_and_watch(experiment, json_lines=arguments.json, detach=arguments.detach)


def _make(arguments: argparse.Namespace) -> tuple[Plan, Profile]:
    """The plan of an experiment, called after its job, and the site's profile."""
    from launcher.experiment import ExperimentPaths, new_name
    from launcher.plan import make_plan
    from launcher.profile import choose_container, load_profile
    from launcher.spec import find_job, parse_seeds
    from launcher.sweep import make_variants, parse_sweep

    job_file = find_job(arguments.job, COMMAND_WORDS)
    seeds = parse_seeds(arguments.seeds)
    profile = load_profile(arguments.profile)

    def job_of(swept: tuple[str, ...]) -> Job:
        job = load_job(job_file, [*arguments.overrides, *swept])
        container = choose_container(job.container, profile, arguments.runtime, arguments.image)
        return dataclasses.replace(job, container=container)

    variants = make_variants(parse_sweep(arguments.sweep), job_of) if arguments.sweep else ()
    job = variants[0].job if variants else job_of(())
    root = shared.runs_of(arguments).absolute() / new_name(job.job.name, time.time())
    return make_plan(job, seeds, ExperimentPaths(root), arguments.data, variants), profile


def _register(
    arguments: argparse.Namespace, plan: Plan, profile: Profile, policy: Policy
) -> Experiment:
    """Write the experiment's folder."""
    from launcher.experiment import Experiment, Registration

    return Experiment.register(
        plan.paths,
        plan.job,
        Registration(
            seeds=plan.seeds,
            stages=plan.stages,
            asked_job=arguments.job,
            overrides=tuple(arguments.overrides),
            data=str(plan.data),
            executor=profile.site.executor,
            profile=profile.plain(),
            policy=policy.plain(),
            variants=plan.variants,
        ),
    )


def _registered_policy(arguments: argparse.Namespace) -> Policy:
    """What will count as better, with the baseline's scores as they are now."""
    policy = shared.policy_of(arguments)
    if arguments.baseline is None:
        return policy
    from launcher.reporting.sources import find_scores

    return dataclasses.replace(
        policy, baseline=find_scores(arguments.baseline, shared.runs_of(arguments))
    )
