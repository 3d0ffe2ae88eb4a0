"""The coordinator of `python -m launcher.fanout`: `golf eval` over Ray workers, the same numbers.

1. Job, data and weights are read as `golf eval` reads them, and a finished evaluation is not begun.
2. A private Ray is started and one worker a rank placed on it; each loads the weights by itself.
3. This process coordinates: it owns ledger, progress and result, and no model.

On several nodes of a job the first one's process coordinates. The exit codes are those of
`golf eval`; a node that was lost and does not come back is told as a stop, so that the job goes
back into the queue.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from golf.cli import EXIT_STOPPED, report_evaluation, run_command, weights_path
from golf.cli_options import eval_options
from golf.config import ConfigError, load_job
from golf.evaluate.options import EvalOptions
from golf.evaluate.run import already_evaluated, check_options, evaluate_with
from golf.evaluate.validation import ValidationSet
from golf.model.precision import choose_dtype
from golf.records import DataPaths
from launcher.fanout.group import NodesLostError, RayGroup
from launcher.fanout.meeting import Meeting
from launcher.fanout.pipelined import PipelinedGroup, run_ahead_of, split_workers
from launcher.fanout.private_ray import private_ray
from launcher.fanout.rank import RankSpec

STOP_LIMIT_S = 4.0
"""Time for Ray to end in order, well within the time that a scheduler leaves before it kills."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> int:
    spec = _read(arguments)

    def tell(line: str) -> None:
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    check_options(spec.options)
    result = already_evaluated(spec.options, tell)
    if result is None:
        validation = spec.load_validation()
        per_node = spec.world_size // spec.num_nodes
        num_gpus = per_node if spec.device == "cuda" else 0
        meeting = Meeting.under_way(arguments.meeting) if spec.num_nodes > 1 else None
        with private_ray(arguments.ray_folder, per_node, num_gpus, spec.num_nodes, meeting):
            _stop_on_sigterm()
            try:
                result = _run(spec, validation, tell)
            except NodesLostError as lost:
                print(f"golf: {lost}", file=sys.stderr)
                return EXIT_STOPPED
    return report_evaluation(arguments, result)


def _run(spec: RankSpec, validation: ValidationSet, tell: Any) -> dict[str, Any]:
    group = _group(spec, tell)
    homes = Counter(worker["host"] for worker in group.status()["workers"])
    tell(f"Ray workers: {', '.join(f'{count} on {host}' for host, count in homes.items())}")
    try:
        return evaluate_with(group, spec.options, validation, tell)
    finally:
        group.close()


def _group(spec: RankSpec, tell: Any) -> RayGroup | PipelinedGroup:
    """The workers of the job's schedule."""
    fanout = spec.options.job.fanout
    if spec.options.job.ttt.schedule == "strict":
        return RayGroup(spec, fanout.max_recoveries, fanout.call_timeout_s)
    adapters, why = split_workers(spec)
    run_ahead = run_ahead_of(spec, adapters)
    tell(
        f"pipelined: {adapters} of {spec.world_size} workers adapt, at most {run_ahead} chunks "
        f"ahead ({why})"
    )
    spec = dataclasses.replace(spec, adapters=adapters, run_ahead=run_ahead)
    return PipelinedGroup(spec, fanout.max_recoveries, fanout.call_timeout_s)


def _read(arguments: argparse.Namespace) -> RankSpec:
    job = load_job(arguments.config, arguments.set)
    if job.ttt.schedule == "pipelined" and arguments.protocol != "ttt":
        raise ConfigError(
            f"ttt.schedule='pipelined' is a way to adapt, and --protocol {arguments.protocol} does "
            "not: --set ttt.schedule=strict"
        )
    workers = arguments.workers or job.fanout.workers
    if workers < 1:
        raise ConfigError("name the number of Ray workers: --workers N, or [fanout] workers")
    if job.fanout.nodes > 1 and (arguments.meeting is None or workers % job.fanout.nodes):
        raise ConfigError(
            f"fanout.nodes={job.fanout.nodes} wants a Slurm job that golf-launch submits, and a "
            "multiple of it as fanout.workers; here it is --set fanout.nodes=1"
        )
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = EvalOptions(
        job=job,
        protocol=arguments.protocol,
        out=arguments.out.absolute(),
        dtype=choose_dtype(arguments.dtype, torch.device(device)),
        save_nll=arguments.save_nll,
        resume=arguments.resume,
        compiled=device == "cuda" if arguments.compile is None else arguments.compile,
        attention=arguments.attention,
    )
    return RankSpec(
        options=options,
        data=DataPaths(arguments.data.absolute()),
        tokenizer=arguments.tokenizer and arguments.tokenizer.absolute(),
        weights=weights_path(arguments).absolute(),
        device=device,
        world_size=workers,
        num_nodes=job.fanout.nodes,
        # As torchrun: one thread a process unless told otherwise.
        num_threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
    )


def _stop_on_sigterm() -> None:
    """After Ray, which sets a handler of its own. The ledger is safe after any chunk.

    Whoever stops a job may have stopped Ray's processes too, and Ray waits for them in vain.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        impatience = threading.Timer(STOP_LIMIT_S, os._exit, (EXIT_STOPPED,))
        impatience.daemon = True
        impatience.start()
        sys.exit(EXIT_STOPPED)

    signal.signal(signal.SIGTERM, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.fanout",
        description="golf eval over a group of Ray workers, started here and ended with it.",
    )
    eval_options(parser.add_argument)
    parser.add_argument("--meeting", type=Path, help="where the nodes of this job meet")
    parser.add_argument("--ray-folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--workers", type=int, metavar="N", help="default: the job's [fanout]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
