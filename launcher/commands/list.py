"""golf-launch list: the experiments of a folder, the newest last."""

from __future__ import annotations

import argparse
import json
import time

from launcher.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_runs(parser)
    shared.add_json(parser, "as JSON")


def main(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from launcher import dashboard
    from launcher.clock import SystemClock
    from launcher.executors.choice import executor_of
    from launcher.experiment import list_experiments
    from launcher.figures import ago
    from launcher.watch import Watcher

    runs = shared.runs_of(arguments)
    experiments = list_experiments(runs)
    views = [Watcher(e, executor_of(e), SystemClock()).look() for e in experiments]
    if arguments.json:
        rows = [
            {
                "name": experiment.name,
                "path": str(experiment.paths.root),
                "created_at": experiment.created_at,
                "states": {seed.name: str(seed.state) for seed in view.seeds},
            }
            for experiment, view in zip(experiments, views, strict=True)
        ]
        print(json.dumps(rows))
        return 0
    if not experiments:
        print(f"no experiments in {runs}/")
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("experiment", "started", "seeds"):
        table.add_column(name, no_wrap=True)
    for experiment, view in zip(experiments, views, strict=True):
        table.add_row(
            experiment.name, ago(time.time() - experiment.created_at), dashboard.counts(view)
        )
    Console().print(table if table.rows else Text())
    return 0
