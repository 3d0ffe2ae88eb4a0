"""golf-launch report: the results as they stand, in the terminal and as HTML, Markdown and JSON."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from launcher.commands import arguments as shared

if TYPE_CHECKING:
    from launcher.experiment import Experiment
    from launcher.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "the content of report.json")


def main(arguments: argparse.Namespace) -> int:
    from launcher.executors.choice import executor_of
    from launcher.report import collect, write

    experiment = shared.experiment_of(arguments)
    report = collect(experiment, executor_of(experiment))
    write(report, experiment.paths)
    if arguments.json:
        print(json.dumps(report.plain()))
    else:
        show(report, experiment)
    return report.exit_code


def show(report: Report, experiment: Experiment) -> None:
    """Print a report, and where its files are."""
    from rich.console import Console

    from launcher import hints, report_tables

    console = Console()
    console.print(report_tables.draw(report))
    console.print()
    paths = experiment.paths
    for path in (paths.report_html, paths.report_md, paths.report_json):
        console.print(hints.short(path), style="dim", soft_wrap=True, highlight=False)
