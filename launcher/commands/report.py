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
    from rich.console import RenderableType

    from launcher.experiment import Experiment
    from launcher.results import Results

SVG_COLUMNS = 94


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "the content of report.json")
    parser.add_argument("--svg", type=Path, metavar="F", help="also save the picture as SVG")


def main(arguments: argparse.Namespace) -> int:
    from launcher.executors.choice import executor_of
    from launcher.results import read_results, write_results

    experiment = shared.experiment_of(arguments)
    report = read_results(experiment, executor_of(experiment))
    write_results(report, experiment.paths)
    if arguments.json:
        print(json.dumps(report.plain()))
    else:
        show(report, experiment)
    if arguments.svg:
        save_svg(report, arguments.svg)
    return report.exit_code


def save_svg(report: Results, path: Path) -> None:
    """Save what the terminal shows of a report as a picture."""
    from rich.console import Console

    console = Console(record=True, width=SVG_COLUMNS, file=io.StringIO())
    console.print(_drawn(report))
    svg = console.export_svg(title=f"golf-launch report {report.name}")
    # rich points to a web font; the reader's own monospace shows the picture without a network.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def show(report: Results, experiment: Experiment) -> None:
    """Print a report, and where its files are."""
    from rich.console import Console

    from launcher import hints

    console = Console()
    console.print(_drawn(report))
    console.print()
    paths = experiment.paths
    for path in (paths.report_html, paths.report_md, paths.report_json):
        console.print(hints.short(path), style="dim", soft_wrap=True, highlight=False)


def _drawn(report: Results) -> RenderableType:
    from launcher.reporting import sweep_tables, tables
    from launcher.sweep_report import SweepReport

    return sweep_tables.draw(report) if isinstance(report, SweepReport) else tables.draw(report)
