"""golf-launch compare A B [C ...]: is A better than B, and than C, by more than a margin?"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.commands import arguments as shared

if TYPE_CHECKING:
    from launcher.reporting.comparison import Comparison
    from launcher.reporting.policy import Policy
    from launcher.reporting.scores import Scores

SHOWN, NOT_SHOWN = 0, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="+",
        metavar="A B [C ...]",
        help="an experiment, a published record (pr1493, or a part of its name), a submission.json "
        "or a folder of challenge logs; the first is held against each of the others",
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="hold every one named against this instead"
    )
    shared.add_policy(parser)
    parser.add_argument(
        "--patterns", type=Path, metavar="F.toml", help="more labels of challenge logs"
    )
    shared.add_runs(parser)
    shared.add_json(parser, "as JSON")


def main(arguments: argparse.Namespace) -> int:
    from launcher.errors import LaunchError
    from launcher.reporting.challenge_logs import read_patterns
    from launcher.reporting.comparison import judge
    from launcher.reporting.sources import find_scores

    policy = shared.policy_of(arguments)
    patterns = read_patterns(arguments.patterns) if arguments.patterns else None
    named = [find_scores(name, shared.runs_of(arguments), patterns) for name in arguments.names]
    if arguments.baseline is not None:
        baseline = find_scores(arguments.baseline, shared.runs_of(arguments), patterns)
        pairs = [(candidate, baseline) for candidate in named]
        named.append(baseline)
    elif len(named) < 2:
        raise LaunchError("compare takes two or more, as in golf-launch compare pr1514 pr1493")
    else:
        pairs = [(named[0], baseline) for baseline in named[1:]]
    comparisons = judge(pairs, policy)
    if all(comparison.outcome is None for comparison in comparisons):
        raise LaunchError("; ".join(comparison.verdict for comparison in comparisons))
    if arguments.json:
        plain = {
            "policy": policy.plain(),
            "configurations": [scores.plain() for scores in named],
            "comparisons": [dataclasses.asdict(each) for each in comparisons],
        }
        print(json.dumps(plain))
    else:
        _show(named, comparisons, policy)
    return SHOWN if all(comparison.passed for comparison in comparisons) else NOT_SHOWN


def _show(named: list[Scores], comparisons: tuple[Comparison, ...], policy: Policy) -> None:
    """Verdicts first, then the figures."""
    from rich.console import Console
    from rich.text import Text

    from launcher import text_table
    from launcher.reporting import comparison_text

    console = Console()
    for each in comparisons:
        mark, style = ("✔", "bold green") if each.passed else ("✘", "bold red")
        line = Text(f"{mark} {each.candidate}: {each.verdict}", style=style)
        console.print(line, soft_wrap=not console.is_terminal)
    console.print()
    console.print(text_table.draw(comparison_text.configurations(named), num_folding=1))
    console.print()
    console.print(text_table.draw(comparison_text.results(comparisons), num_folding=2))
    console.print(Text(f"\n{policy}", style="dim"))
