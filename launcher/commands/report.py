"""golf-launch report: the results as they stand, in the terminal and as HTML, Markdown and JSON."""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.commands import arguments as shared

if TYPE_CHECKING:
    from launcher.experiment import Experiment
    from launcher.report import Report

SVG_COLUMNS = 94


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "the content of report.json")
    parser.add_argument("--svg", type=Path, metavar="F", help="also save the picture as SVG")


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
    if arguments.svg:
        save_svg(report, arguments.svg)
    return report.exit_code


def save_svg(report: Report, path: Path) -> None:
    """Save what the terminal shows of a report as a picture."""
    from rich.console import Console

    from launcher.reporting import tables

    console = Console(record=True, width=SVG_COLUMNS, file=io.StringIO())
    console.print(tables.draw(report))
    svg = console.export_svg(title=f"golf-launch report {report.name}")
    # rich points to a web font; the reader's own monospace shows the picture without a network.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def show(report: Report, experiment: Experiment) -> None:
    """Print a report, and where its files are."""
    from rich.console import Console

    from launcher import hints
    from launcher.reporting import tables

    console = Console()
    console.print(tables.draw(report))
    console.print()
    paths = experiment.paths
    for path in (paths.report_html, paths.report_md, paths.report_json):
        console.print(hints.short(path), style="dim", soft_wrap=True, highlight=False)
