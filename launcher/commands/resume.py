"""golf-launch resume: run what an experiment lacks, from its checkpoints, and watch."""

from __future__ import annotations

import argparse

from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "events as JSON lines instead of the dashboard")
    parser.add_argument("--detach", action="store_true", help="start the jobs and do not watch")


def main(arguments: argparse.Namespace) -> int:
    from launcher.commands.attach import submit_and_watch

    experiment = shared.experiment_of(arguments)
    return submit_and_watch(experiment, json_lines=arguments.json, detach=arguments.detach)
