"""golf-launch logs: what the stages print."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from launcher.commands import arguments as shared

if TYPE_CHECKING:
    from launcher.experiment import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_seed_filter(parser, "this seed only; may be repeated")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the experiment is over"
    )
    parser.add_argument(
        "-n", "--lines", type=int, metavar="N", help="the last N lines of each stage only"
    )


def main(arguments: argparse.Namespace) -> int:
    from launcher.submit import keys_of

    experiment = shared.experiment_of(arguments)
    keys = keys_of(experiment, arguments.seeds, arguments.variants)
    if arguments.follow:
        return _follow(experiment, keys)
    for key in keys:
        _print_log(experiment, key, arguments.lines)
    return 0


def _print_log(experiment: Experiment, key: str, lines: int | None) -> None:
    from launcher.tails import tail_lines

    log = experiment.paths.stage(key).log
    if not log.exists():
        return
    print(f"==> {key}  {log}")
    if lines is not None:
        print("\n".join(tail_lines(log, lines)))
        return
    with log.open(errors="replace") as file:
        for line in file:
            sys.stdout.write(line)


def _follow(experiment: Experiment, keys: list[str]) -> int:
    """Print new lines, each with its stage, until nothing runs or waits."""
    from launcher.clock import SystemClock
    from launcher.executors.choice import executor_of
    from launcher.tails import TextTail
    from launcher.watch import Watcher

    tails = {key: TextTail(experiment.paths.stage(key).log) for key in keys}
    try:
        for _ in Watcher(experiment, executor_of(experiment), SystemClock()).views():
            for key, tail in tails.items():
                for line in tail.poll():
                    print(f"{key}  {line}", flush=True)
    except KeyboardInterrupt:
        return 130
    return 0
