"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.experiment import Experiment, find_experiment, find_runs

if TYPE_CHECKING:
    from launcher.reporting.policy import Policy


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """EXPERIMENT and --runs."""
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT",
        help="name, part of a name, or folder; the newest by default",
    )
    add_runs(parser)


def add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder of the experiments (default: site.runs of the profile, or runs)",
    )


def add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="F",
        help="the cluster profile (default: golf-launch/profile.toml in your configuration folder)",
    )


def runs_of(arguments: argparse.Namespace) -> Path:
    """The folder of experiments: asked for, or the site's, or `runs` here."""
    from launcher.profile import load_profile

    if arguments.runs is not None:
        return Path(arguments.runs)
    return Path(load_profile(getattr(arguments, "profile", None)).site.runs or "runs")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_job(parser: argparse.ArgumentParser) -> None:
    """JOB, --seeds, --set, --data and --runs."""
    parser.add_argument(
        "job",
        nargs="?",
        default="record",
        metavar="JOB",
        help="job file, or the name of a shipped one (default: record)",
    )
    parser.add_argument(
        "--seeds", nargs="+", metavar="N", help="seeds, parted by commas or spaces", default=[]
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="change a setting of the job; may be repeated",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with shards and tokenizer")
    add_profile(parser)
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help="container runtime: pyxis, apptainer, charliecloud, podman, docker or none",
    )
    parser.add_argument("--image", metavar="IMAGE", help="container image, as the runtime names it")
    add_runs(parser)


def add_seed_filter(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", action="append", type=int, metavar="N", dest="seeds", help=what)
    parser.add_argument(
        "--variant",
        action="append",
        metavar="KEY",
        dest="variants",
        help="of a sweep, this variant only, as in lr=0.01; may be repeated",
    )


def experiment_of(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the user named."""
    return find_experiment(runs_of(arguments), arguments.experiment)


def variant_of(arguments: argparse.Namespace) -> tuple[Experiment, str | None]:
    """The experiment that the user named and, of a sweep, the key of the variant: `NAME/KEY`."""
    return find_runs(runs_of(arguments), arguments.experiment)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """--test, --margin, --alpha and --unit: what counts as better."""
    parser.add_argument(
        "--test",
        default="welch",
        metavar="TEST",
        help="welch (default), paired (by common seeds), one-sample (against a published mean) or "
        "permutation (exact)",
    )
    parser.add_argument(
        "--margin",
        default="0.005nats",
        metavar="AMOUNT",
        help="by how much it must be better, with its unit: 0.005nats (a token, default), 0.002bpb",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.01, metavar="P", help="level of the test (default: 0.01)"
    )
    parser.add_argument(
        "--unit", default="bpb", metavar="UNIT", help="in which to test: bpb (default) or nats"
    )


def add_baseline(parser: argparse.ArgumentParser) -> None:
    """--baseline and the policy, which a launch registers."""
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="published record (pr1493), experiment or submission.json that the result is to beat",
    )
    add_policy(parser)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="SECTION.KEY=A,B",
        help="run every seed with each of these values, and rank them; several are crossed",
    )


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The policy that the user asked for, without its baseline."""
    from launcher.reporting.policy import Policy
    from launcher.reporting.units import parse_margin

    return Policy(
        test=arguments.test,
        margin=parse_margin(arguments.margin),
        alpha=arguments.alpha,
        unit=arguments.unit,
    )
