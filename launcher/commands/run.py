"""golf-launch [run] JOB --seeds ...: plan, submit, watch, collect, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from golf.config import load_job
from launcher.commands import arguments as shared
from launcher.errors import LaunchError

if TYPE_CHECKING:
    from launcher.policy import Policy

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
    "list",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_job(parser)
    shared.add_baseline(parser)
    shared.add_json(parser, "events as JSON lines instead of the dashboard")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    parser.add_argument("--detach", action="store_true", help="start the jobs and do not watch")


def main(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from launcher import plan_text
    from launcher.checks import Verdict, check_plan, refused
    from launcher.commands.attach import submit_and_watch
    from launcher.experiment import Experiment, ExperimentPaths, Registration, new_name
    from launcher.forecast import forecast
    from launcher.machine import this_machine
    from launcher.plan import make_plan
    from launcher.spec import find_job, parse_seeds

    job_file = find_job(arguments.job, COMMAND_WORDS)
    seeds = parse_seeds(arguments.seeds)
    job = load_job(job_file, arguments.overrides)
    root = Path(arguments.runs).absolute() / new_name(job.job.name, time.time())
    plan = make_plan(job, seeds, ExperimentPaths(root), arguments.data)
    policy = _policy(arguments)
    checks = (*check_plan(plan, this_machine()), *forecast(plan, policy))
    if arguments.json:
        print(json.dumps({"event": "plan", "time": time.time(), **plan_text.plain(plan, checks)}))
    else:
        Console().print(plan_text.draw(plan, checks))
        if arguments.dry_run:
            print("", *plan_text.command_lines(plan), sep="\n")
    if refused(checks):
        failed = [check.name for check in checks if check.verdict is Verdict.FAIL]
        raise LaunchError(f"nothing was started; see above: {', '.join(failed)}")
    if arguments.dry_run:
        return 0
    experiment = Experiment.register(
        plan.paths,
        job,
        Registration(
            seeds=seeds,
            stages=plan.stages,
            asked_job=arguments.job,
            overrides=tuple(arguments.overrides),
            data=str(plan.data),
            policy=policy.plain(),
        ),
    )
    return submit_and_watch(experiment, json_lines=arguments.json, detach=arguments.detach)


def _policy(arguments: argparse.Namespace) -> Policy:
    """What will count as better, with the baseline's scores as they are now."""
    policy = shared.policy_of(arguments)
    if arguments.baseline is None:
        return policy
    from launcher.sources import find_scores

    return dataclasses.replace(policy, baseline=find_scores(arguments.baseline, arguments.runs))
