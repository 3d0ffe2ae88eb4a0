"""golf-launch cancel: ask jobs to stop, with a checkpoint, and wait until they have."""

from __future__ import annotations

import argparse

from launcher import hints
from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_experiment(parser)
    shared.add_seed_filter(parser, "cancel this seed only; may be repeated")


def main(arguments: argparse.Namespace) -> int:
    from launcher.clock import SystemClock
    from launcher.executors.choice import executor_of
    from launcher.submit import cancel_and_wait, keys_of

    experiment = shared.experiment_of(arguments)
    keys = keys_of(experiment, arguments.seeds, arguments.variants)
    before, after = cancel_and_wait(experiment, executor_of(experiment), keys, SystemClock())
    stopped = [key for key in keys if before[key].state is not after[key].state]
    for key in stopped:
        status = after[key]
        print(f"{key}  {status.state}{f': {status.reason}' if status.reason else ''}")
    if not stopped:
        print(f"nothing of {experiment.name} was under way")
        return 0
    print(f"go on with:  {hints.command('resume', experiment.paths.root)}")
    return 0
