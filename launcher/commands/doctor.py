"""golf-launch doctor: is this site ready? With --job, a real job of a minute tells the rest."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_profile(parser)
    shared.add_runs(parser)
    shared.add_json(parser, "the checks as JSON")
    parser.add_argument("--job", action="store_true", help="also run a job of a minute on a node")


def main(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from launcher import plan_text
    from launcher.checks import refused
    from launcher.doctor import diagnose, run_job
    from launcher.profile import load_profile

    profile = load_profile(arguments.profile)
    runs = Path(shared.runs_of(arguments)).absolute()
    checks = tuple(diagnose(profile, runs))
    if arguments.job and not refused(checks):
        checks += tuple(run_job(profile, runs))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks]))
    else:
        Console().print(plan_text.draw_checks(checks))
    return 1 if refused(checks) else 0
