"""golf-launch logs: what the stages print, and what the jobs around them do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
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
    parser.add_argument(
        "--jobs",
        action="store_true",
        help="also what the scheduler's jobs print outside the stages' own logs: setup lines, "
        "srun, attempts; shown by itself where a stage never began",
    )


def main(arguments: argparse.Namespace) -> int:
    from launcher.submit import keys_of

    experiment = shared.experiment_of(arguments)
    keys = keys_of(experiment, arguments.seeds, arguments.variants)
    if arguments.follow:
        return _follow(experiment, keys, jobs=arguments.jobs)
    for key in keys:
        for path in _logs(experiment, key, jobs=arguments.jobs):
            _print_log(key, path, arguments.lines)
    return 0


def _logs(experiment: Experiment, key: str, *, jobs: bool) -> list[Path]:
    """A stage's log and, where wanted or where there is none, the outputs of its jobs."""
    from launcher.job_output import job_outputs

    log = experiment.paths.stage(key).log
    own = [log] if log.exists() else []
    return [*job_outputs(experiment, key), *own] if jobs or not own else own


def _print_log(key: str, log: Path, lines: int | None) -> None:
    from launcher.tails import tail_lines

    print(f"==> {key}  {log}")
    if lines is not None:
        print("\n".join(tail_lines(log, lines)))
        return
    with log.open(errors="replace") as file:
        for line in file:
            sys.stdout.write(line)


def _follow(experiment: Experiment, keys: list[str], *, jobs: bool) -> int:
    """Print new lines, each with its stage, until nothing runs or waits."""
    from launcher.clock import SystemClock
    from launcher.executors.choice import executor_of
    from launcher.tails import TextTail
    from launcher.watch import Watcher

    tails: dict[tuple[str, Path], TextTail] = {}
    try:
        for _ in Watcher(experiment, executor_of(experiment), SystemClock()).views():
            for key in keys:
                for path in _logs(experiment, key, jobs=jobs):
                    tail = tails.setdefault((key, path), TextTail(path))
                    for line in tail.poll():
                        print(f"{key}  {line}", flush=True)
    except KeyboardInterrupt:
        return 130
    return 0
