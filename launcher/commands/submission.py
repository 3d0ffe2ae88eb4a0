"""golf-launch submission EXPERIMENT --out DIR: the folder that the challenge asks for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from launcher import hints
from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--name", default="", metavar="TEXT", help="what the submission is called")
    shared.add_profile(parser)
    parser.add_argument("--author", metavar="TEXT", help="default: author.name of the profile")
    parser.add_argument(
        "--github-id", metavar="TEXT", help="default: author.github_id of the profile"
    )
    parser.add_argument("--blurb", default="", metavar="TEXT", help="what is new, in a sentence")


def main(arguments: argparse.Namespace) -> int:
    from launcher.executors.choice import executor_of
    from launcher.report import collect
    from launcher.submission import write
    from launcher.sweep_report import collect_sweep

    experiment, variant = shared.variant_of(arguments)
    executor = executor_of(experiment)
    report = collect(experiment, executor, variant)
    signed = {**_author(arguments), "name": arguments.name, "blurb": arguments.blurb}
    sweep = collect_sweep(experiment, executor) if experiment.is_sweep else None
    path = write(experiment.runs_of(variant), report, arguments.out, signed, sweep)
    print(report.verdict)
    for found in sorted(path.parent.iterdir()):
        print(f"{found.stat().st_size:>10,}  {hints.short(found)}")
    return report.exit_code


def _author(arguments: argparse.Namespace) -> dict[str, str]:
    """Who signs: the command line's words, or else the profile's; says what both leave out."""
    from launcher.profile import default_path, load_profile

    author = load_profile(arguments.profile).author
    given = {"author": arguments.author, "github_id": arguments.github_id}
    found = {
        "author": author.name if given["author"] is None else given["author"],
        "github_id": author.github_id if given["github_id"] is None else given["github_id"],
    }
    for field, key in (("author", "name"), ("github_id", "github_id")):
        if not found[field]:
            where = arguments.profile or default_path()
            option = f"--{field.replace('_', '-')}"
            print(
                f"submission.json lacks {field}, which the challenge asks for: set {key} under "
                f"[author] in {where}, or give {option}",
                file=sys.stderr,
            )
    return found
