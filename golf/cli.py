"""The `golf` command: what runs inside a job, and by hand.

Every subcommand is a thin layer over one function of the package; what it needs is imported when it
runs and its job file is read, so that `golf --help` and a wrong setting never wait for torch.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or settings, 3 a budget or legality check
failed, 143 stopped by a signal (`--resume` goes on).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from golf.cli_options import (
    WEIGHTS,
    count,
    eval_options,
    job_options,
    run_options,
    weights_options,
)
from golf.config import ConfigError, Job, load_job
from golf.records import DataPaths, EvalPaths, RunError, write_json

if TYPE_CHECKING:
    import torch

    from golf.distributed import Ranks
    from golf.evaluate.verify import Verdict

EXIT_FAILED, EXIT_USAGE, EXIT_GATE, EXIT_STOPPED = 1, 2, 3, 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def run_command(command: Callable[[], int]) -> int:
    """Run a subcommand and say on one line what its user can mend; returns the exit code."""
    try:
        return command()
    except ConfigError as error:
        return _complain(error, EXIT_USAGE)
    except RunError as error:
        return _complain(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_STOPPED


def _complain(error: Exception, code: int) -> int:
    print(f"golf: {error}", file=sys.stderr)
    return code


# ---- subcommands ----


def _prepare(arguments: argparse.Namespace) -> int:
    from golf.data.prepare import embedded_corpus, prepare

    docs = [embedded_corpus() if str(d) == "embedded" else d for d in arguments.docs]
    with _progress_bar() as progress:
        manifest = prepare(
            docs,
            arguments.out,
            vocab_size=arguments.vocab_size,
            tokenizer=arguments.tokenizer,
            val_docs=arguments.val_docs,
            progress=progress,
        )
    return _report(arguments, manifest, f"data ready in {arguments.out}")


def _download(arguments: argparse.Namespace) -> int:
    from golf.data.download import DEFAULT_REPO_ID, download

    with _progress_bar() as progress:
        manifest = download(
            arguments.variant,
            arguments.out,
            train_shards=arguments.train_shards,
            repo_id=arguments.repo or DEFAULT_REPO_ID,
            progress=progress,
        )
    return _report(arguments, manifest, f"data ready in {arguments.out}")


def _train(arguments: argparse.Namespace) -> int:
    job = load_job(arguments.config, arguments.set)
    from golf.train import StoppedError, TrainOptions, train
    from golf.weights import load_weights

    with _ranks(arguments) as (ranks, dtype):
        options = TrainOptions(
            job=job,
            data=DataPaths(arguments.data),
            out=arguments.out,
            seed=arguments.seed,
            dtype=dtype,
            init=load_weights(arguments.init) if arguments.init else None,
            resume=arguments.resume,
            compiled=_compiled(arguments, ranks),
            attention=arguments.attention,
            tokenizer=arguments.tokenizer,
        )
        try:
            result = train(options, ranks, _teller(arguments, ranks))
        except StoppedError as stopped:
            return _complain(stopped, EXIT_STOPPED) if ranks.is_main else EXIT_STOPPED
        text = (
            f"trained {result['steps']} steps in {result['train_seconds']:.1f} s: "
            f"val_loss {result['val_loss']:.4f}  val_bpb {result['val_bpb']:.4f}"
        )
        return _report(arguments, result, text) if ranks.is_main else 0


def _quantize(arguments: argparse.Namespace) -> int:
    job = load_job(arguments.config, arguments.set)
    from golf.quantize.artifact import BudgetError, check_budget, write_artifact
    from golf.weights import check_weights, load_weights

    state = load_weights(arguments.checkpoint)
    check_weights(state, _expected_shapes(job))
    code_bytes = _code_bytes(arguments.code, job)
    report = write_artifact(arguments.out, state, job.model, job.quantize)
    total_bytes = report.model_bytes + code_bytes
    sizes = {
        "model_bytes": report.model_bytes,
        "code_bytes": code_bytes,
        "total_bytes": total_bytes,
        "budget_bytes": job.budget.artifact_bytes,
        "group_bytes": report.group_bytes,
        "tensor_bytes": report.tensor_bytes,
    }
    write_json(arguments.out.with_name(arguments.out.name + ".json"), sizes)
    code = _report(
        arguments,
        sizes,
        f"artifact {total_bytes:,} bytes: model {report.model_bytes:,} + code "
        f"{code_bytes:,} of {job.budget.artifact_bytes:,}",
    )
    try:
        check_budget(report, code_bytes, job.budget.artifact_bytes)
    except BudgetError as error:
        return _complain(error, EXIT_GATE)
    return code


def _code_bytes(code: Path | None, job: Job) -> int:
    """Bytes of the code that ships: a file that is there, or the one that this job would make."""
    if code is None:
        from golf.bundle import bundle_bytes

        return bundle_bytes(job)
    try:
        return code.stat().st_size
    except OSError as error:
        raise ConfigError(f"--code {code} cannot be read: {error.strerror}") from None


def _unpack(arguments: argparse.Namespace) -> int:
    from golf.weights import load_weights, save_weights

    state = load_weights(arguments.artifact)
    save_weights(arguments.out, state)
    count = sum(t.numel() for t in state.values())
    summary = {"tensors": len(state), "parameters": count, "out": str(arguments.out)}
    return _report(
        arguments, summary, f"{len(state)} tensors, {count:,} parameters -> {arguments.out}"
    )


def _eval(arguments: argparse.Namespace) -> int:
    job, source = load_job(arguments.config, arguments.set), weights_path(arguments)
    from golf.evaluate.options import EvalOptions
    from golf.evaluate.run import evaluate
    from golf.evaluate.validation import ValidationSet
    from golf.weights import load_weights

    # The ledger is safe after any chunk; nothing needs saving.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
    with _ranks(arguments) as (ranks, dtype):
        options = EvalOptions(
            job=job,
            protocol=arguments.protocol,
            out=arguments.out,
            dtype=dtype,
            save_nll=arguments.save_nll,
            resume=arguments.resume,
            compiled=_compiled(arguments, ranks),
            attention=arguments.attention,
        )
        weights = load_weights(source, job.model)
        validation = ValidationSet.load(
            DataPaths(arguments.data), job.model.vocab_size, arguments.tokenizer
        )
        result = evaluate(options, weights, validation, ranks, _teller(arguments, ranks))
        return report_evaluation(arguments, result) if ranks.is_main else 0


def _verify(arguments: argparse.Namespace) -> int:
    from golf.evaluate.verify import verify

    verdicts, is_main = verify(arguments.dir), True
    if arguments.replay and all(v.ok for v in verdicts):
        verdict, is_main = _replay(arguments)
        verdicts.append(verdict)
    valid = all(v.ok for v in verdicts)
    summary = {"valid": valid, "checks": {v.name: v.problem or "ok" for v in verdicts}}
    lines = [f"{'ok  ' if v.ok else 'FAIL'} {v.name:<9} {v.problem or v.note}" for v in verdicts]
    if is_main:
        _report(arguments, summary, "\n".join(line.rstrip() for line in lines))
    return 0 if valid else EXIT_GATE


def _replay(arguments: argparse.Namespace) -> tuple[Verdict, bool]:
    """The verdict, and whether this rank tells it."""
    from golf.distributed import join_ranks
    from golf.evaluate.replay import replay
    from golf.evaluate.validation import ValidationSet
    from golf.evaluate.verify import EvalFiles
    from golf.weights import load_weights

    if arguments.data is None:
        raise ConfigError("--replay needs --data and --artifact or --checkpoint")
    source, model = weights_path(arguments), EvalFiles.read(EvalPaths(arguments.dir)).job.model
    with join_ranks(arguments.device) as ranks:
        data = DataPaths(arguments.data)
        validation = ValidationSet.load(data, model.vocab_size, arguments.tokenizer)
        weights = load_weights(source, model)
        count, seed = arguments.replay, arguments.seed
        return replay(arguments.dir, count, seed, weights, validation, ranks), ranks.is_main


def _bench(arguments: argparse.Namespace) -> int:
    job = load_job(arguments.config, arguments.set)
    from golf.bench import bench

    with _ranks(arguments) as (ranks, dtype):
        compiled = _compiled(arguments, ranks)
        result = bench(job, ranks, dtype, compiled=compiled, repeats=arguments.repeats)
        lines = [
            f"{result['device']} {result['dtype']}, attention {result['attention']}, "
            f"{'compiled' if compiled else 'eager'}, {result['threads']} threads, "
            f"{result['parameters']:,} parameters"
        ]
        for name, figure in result["figures"].items():
            rate = figure["tokens_per_s"]
            speed = f"{rate:>12,.0f} tokens/s" if rate else ""
            lines.append(f"{name:<18} {figure['median_ms']:>10.2f} ms {speed}")
        return _report(arguments, result, "\n".join(lines)) if ranks.is_main else 0


def _stage(arguments: argparse.Namespace) -> int:
    from golf.stage import run_stage

    return run_stage(arguments.dir)


# ---- shared by the subcommands, and by another command line that evaluates ----


def weights_path(arguments: argparse.Namespace) -> Path:
    """The file that `--checkpoint` or `--artifact` names.

    Raises:
        ConfigError: both are given, or none.
    """
    if (arguments.checkpoint is None) == (arguments.artifact is None):
        raise ConfigError("take the weights from one of --checkpoint and --artifact")
    path: Path = arguments.checkpoint or arguments.artifact
    return path


def report_evaluation(arguments: argparse.Namespace, result: dict[str, Any]) -> int:
    """Print an evaluation's result; returns the exit code."""
    text = (
        f"{result['protocol']}: val_loss {result['val_loss']:.4f}  val_bpb "
        f"{result['val_bpb']:.4f} over {result['tokens']:,} tokens in {result['seconds']:.1f} s"
    )
    return _report(arguments, result, text)


@contextlib.contextmanager
def _ranks(arguments: argparse.Namespace) -> Iterator[tuple[Ranks, torch.dtype]]:
    from golf.distributed import join_ranks
    from golf.model.precision import choose_dtype

    with join_ranks(arguments.device) as ranks:
        yield ranks, choose_dtype(arguments.dtype, ranks.device)


def _compiled(arguments: argparse.Namespace, ranks: Ranks) -> bool:
    """`--compile` and `--no-compile` decide; else only a GPU's run is long enough to gain by it."""
    chosen: bool | None = arguments.compile
    return ranks.device.type == "cuda" if chosen is None else chosen


def _expected_shapes(job: Job) -> dict[str, tuple[int, ...]]:
    import torch

    from golf.model.attention import choose_backend
    from golf.model.gpt import GPT

    with torch.device("meta"):
        model = GPT(job.model, choose_backend(torch.device("cpu"), torch.float32))
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def _teller(arguments: argparse.Namespace, ranks: Ranks) -> Callable[[str], None]:
    """Progress lines for people: from one rank, and beside JSON on standard error."""

    def tell(line: str) -> None:
        if ranks.is_main:
            print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    return tell


def _report(arguments: argparse.Namespace, value: Any, text: str) -> int:
    print(json.dumps(value) if arguments.json else text, flush=True)
    return 0


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """A rich progress bar in a terminal, else one line when a phase begins."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def line(phase: str, done: int, total: int | None) -> None:
            if phase not in seen:
                seen.add(phase)
                print(phase, file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<32}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase)
            bar.update(tasks[phase], completed=done, total=total)

        yield update


# ---- the command line ----


class _Parser(argparse.ArgumentParser):
    """Says on one line what is wrong, and where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="golf", description="The ML system of golf-launch, one seed at a time.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        return command.add_argument

    option = add("prepare", _prepare, "documents to tokenizer and token shards")
    option("--docs", type=Path, nargs="+", required=True, metavar="F",
           help=".jsonl[.zst|.gz], .txt or .parquet files, or 'embedded'")  # fmt: skip
    option("--out", type=Path, required=True, metavar="DATA")
    option("--vocab-size", type=int, required=True, metavar="N")
    option("--tokenizer", type=Path, metavar="F", help="use this model instead of training one")
    option("--val-docs", type=int, default=50, metavar="N", help="leading documents held out (50)")

    option = add("download", _download, "the challenge's published FineWeb shards and tokenizer")
    option("--variant", default="sp1024", metavar="NAME", help="tokenizer variant (sp1024)")
    option("--out", type=Path, required=True, metavar="DATA")
    option("--train-shards", type=int, default=10, metavar="N", help="training shards (10)")
    option("--repo", metavar="ID", help="another data set repository of the hub")

    option = add("train", _train, "train one seed and export its average")
    job_options(option)
    run_options(option)
    option("--data", type=Path, required=True, metavar="DATA")
    option("--out", type=Path, required=True, metavar="DIR")
    option("--seed", type=int, required=True, metavar="N")
    option("--init", type=Path, metavar="F", help="start from these weights, not from the seed's")
    option("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    option("--tokenizer", type=Path, metavar="F", help="where DATA has none")

    option = add("quantize", _quantize, "weights to a compressed artifact within its byte budget")
    job_options(option)
    option("--checkpoint", type=Path, required=True, metavar="F", help=WEIGHTS)
    option("--out", type=Path, required=True, metavar="ARTIFACT")
    option("--code", type=Path, metavar="F.py",
           help="the single file that ships, whose bytes count (default: as this package and job "
           "would make it)")  # fmt: skip

    option = add("unpack", _unpack, "an artifact, or the challenge's own files, to float32 weights")
    option("artifact", type=Path, metavar="ARTIFACT")
    option("--out", type=Path, required=True, metavar="F.safetensors")

    option = add("eval", _eval, "score the validation set: sequential, sliding or legal ttt")
    eval_options(option)

    option = add("verify", _verify, "prove a finished ttt evaluation from its ledger")
    option("dir", type=Path, metavar="DIR")
    option("--replay", type=count, default=0, metavar="K",
           help="also repeat K chunks of it; needs --data and the weights")  # fmt: skip
    option("--seed", type=int, default=0, metavar="N", help="which chunks --replay draws (0)")
    weights_options(option, required=False)
    option("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")

    option = add("bench", _bench, "time training, scoring and adaptation on random tokens")
    job_options(option)
    run_options(option)
    option("--repeats", type=int, default=5, metavar="N", help="counted runs (5)")

    option = add("stage", _stage, "run the commands of a launched stage (golf-launch calls this)")
    option("dir", type=Path, metavar="DIR")
    return parser
