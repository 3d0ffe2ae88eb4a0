"""golf-launch attach: watch an experiment to its end, then report. Ctrl-C leaves it running."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from launcher import hints
from launcher.commands import arguments as shared

if TYPE_CHECKING:
    from launcher.executors.base import Executor
    from launcher.experiment import Experiment
    from launcher.watch import View

DETACHED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "events as JSON lines instead of the dashboard")


def main(arguments: argparse.Namespace) -> int:
    from launcher.executors.choice import executor_of

    experiment = shared.experiment_of(arguments)
    return watch(experiment, executor_of(experiment), json_lines=arguments.json)


def submit_and_watch(experiment: Experiment, *, json_lines: bool, detach: bool) -> int:
    """Submit what is missing; then watch, or say how to."""
    from launcher.executors.choice import executor_of
    from launcher.submit import submit_missing

    executor = executor_of(experiment)
    submitted = submit_missing(experiment, executor)
    if json_lines:
        keys = [stage.key for stage in submitted]
        _print_event({"event": "submitted", "experiment": experiment.name, "stages": keys})
    else:
        print(f"\n{len(submitted)} stages submitted, in {hints.short(experiment.paths.root)}\n")
    if not detach:
        return watch(experiment, executor, json_lines=json_lines)
    if not json_lines:
        print(f"watch with:  {hints.command('attach', experiment.paths.root)}")
    return 0


def watch(experiment: Experiment, executor: Executor, *, json_lines: bool) -> int:
    """Show an experiment until nothing runs or waits, then report.

    Returns:
        The report's exit code; 130 where the user detached.
    """
    from launcher.clock import SystemClock
    from launcher.watch import Watcher

    try:
        show_views(Watcher(experiment, executor, SystemClock()).views(), json_lines)
    except KeyboardInterrupt:
        if json_lines:
            _print_event({"event": "detached", "experiment": experiment.name})
        else:
            again = hints.command("attach", experiment.paths.root)
            print(f"\ndetached; the jobs go on. Back with:  {again}")
        return DETACHED
    return _report(experiment, executor, json_lines)


def show_views(views: Iterator[View], json_lines: bool) -> None:
    """Show views as they come: live in a terminal, else as lines."""
    from rich.console import Console

    from launcher.events import EventStream, plain_lines
    from launcher.live import run_live

    console = Console()
    if console.is_terminal and not json_lines:
        run_live(views, console)
        return
    stream = EventStream()
    for view in views:
        for event in stream.take(view):
            if json_lines:
                _print_event(event)
                continue
            for line in plain_lines(event):
                print(line, flush=True)


def _report(experiment: Experiment, executor: Executor, json_lines: bool) -> int:
    from launcher.commands.report import show
    from launcher.results import read_results, write_results

    report = read_results(experiment, executor)
    write_results(report, experiment.paths)
    if json_lines:
        _print_event({"event": "report", **report.plain()})
    else:
        print()
        show(report, experiment)
    return report.exit_code


def _print_event(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True, file=sys.stdout)
