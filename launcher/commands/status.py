"""golf-launch status: how an experiment stands now, each state with its evidence."""

from __future__ import annotations

import argparse
import json

from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "as JSON")


def main(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from launcher import dashboard
    from launcher.clock import SystemClock
    from launcher.events import plain_view
    from launcher.executors.choice import executor_of
    from launcher.watch import Watcher

    experiment = shared.experiment_of(arguments)
    view = Watcher(experiment, executor_of(experiment), SystemClock()).look()
    if arguments.json:
        print(json.dumps({"path": str(experiment.paths.root), **plain_view(view)}))
        return 0
    console = Console()
    console.print(dashboard.render(view, console.width, 10_000, hint=False))
    console.print()
    console.print(dashboard.evidence(view))
    for line in dashboard.groups(view):
        console.print(line)
    attempts = dashboard.attempts(view)
    if attempts is not None:
        console.print()
        console.print(attempts)
    return 0
