"""golf-launch submission EXPERIMENT --out DIR: the folder that the challenge asks for."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher import hints
from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--name", default="", metavar="TEXT", help="what the submission is called")
    parser.add_argument("--author", default="", metavar="TEXT")
    parser.add_argument("--github-id", default="", metavar="TEXT")
    parser.add_argument("--blurb", default="", metavar="TEXT", help="what is new, in a sentence")


def main(arguments: argparse.Namespace) -> int:
    from launcher.executors.choice import executor_of
    from launcher.report import collect
    from launcher.submission import write

    experiment = shared.experiment_of(arguments)
    report = collect(experiment, executor_of(experiment))
    author = {
        "author": arguments.author,
        "github_id": arguments.github_id,
        "name": arguments.name,
        "blurb": arguments.blurb,
    }
    path = write(experiment, report, arguments.out, author)
    print(report.verdict)
    for found in sorted(path.parent.iterdir()):
        print(f"{found.stat().st_size:>10,}  {hints.short(found)}")
    return report.exit_code
