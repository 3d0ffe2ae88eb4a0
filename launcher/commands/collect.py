"""golf-launch collect: write the report's files from what there is, and say one line."""

from __future__ import annotations

import argparse
import json

from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_json(parser, "the content of report.json")


def main(arguments: argparse.Namespace) -> int:
    from launcher.executors.choice import executor_of
    from launcher.results import read_results, write_results

    experiment = shared.experiment_of(arguments)
    report = read_results(experiment, executor_of(experiment))
    write_results(report, experiment.paths)
    if arguments.json:
        print(json.dumps(report.plain()))
    else:
        paths = experiment.paths
        print(report.verdict, paths.report_html, paths.report_md, paths.report_json, sep="\n")
    return report.exit_code
