"""golf-launch plan: what a launch would do, and every check; starts nothing."""

from __future__ import annotations

import argparse

from launcher.commands import arguments as shared
from launcher.commands import run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_job(parser)
    shared.add_baseline(parser)
    shared.add_sweep(parser)
    shared.add_json(parser, "the plan as JSON, every stage of every seed")


def main(arguments: argparse.Namespace) -> int:
    arguments.dry_run, arguments.detach = True, False
    return run.main(arguments)
