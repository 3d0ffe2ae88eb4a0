"""One private Ray for all tests of a process, and evaluations over it that can be disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from golf.config import Job, job_to_sections
from golf.evaluate.options import EvalOptions
from golf.evaluate.run import evaluate_with
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt
from golf.records import DataPaths
from golf.weights import save_weights
from launcher.fanout.group import RayGroup, RayWorkers
from launcher.fanout.pipelined import PipelinedGroup, run_ahead_of
from launcher.fanout.private_ray import private_ray
from launcher.fanout.rank import RankSpec

CPU = torch.device("cpu")
FanOut = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def job_file(tiny_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of six chunks with a checkpoint at every second, and `w.safetensors` beside it."""
    job = replace(
        tiny_job,
        ttt=replace(tiny_job.ttt, chunk_tokens=576, checkpoint_chunks=2, batch_seqs=3),
        evaluate=replace(tiny_job.evaluate, stride=16),
    )
    path = tmp_path_factory.mktemp("fanout") / "job.toml"
    path.write_text(tomli_w.dumps(job_to_sections(job)))
    torch.manual_seed(5)
    model = build_gpt(job.model, choose_backend(CPU, torch.float32), CPU, torch.float32)
    weights = {n: p.detach() + 0.1 * torch.randn_like(p) for n, p in model.named_parameters()}
    save_weights(path.with_name("w.safetensors"), weights)
    return path


@pytest.fixture(scope="session")
def command(job_file: Path, tiny_data: DataPaths) -> Callable[[Path], list[str]]:
    """The options of `golf eval`, as a list of words."""

    def words(out: Path) -> list[str]:
        return [
            *["--config", str(job_file), "--data", str(tiny_data.root), "--protocol", "ttt"],
            *["--checkpoint", str(job_file.with_name("w.safetensors")), "--save-nll"],
            *["--out", str(out), "--device", "cpu"],
        ]

    return words


@pytest.fixture(scope="session")
def evaluated(
    command: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """The folder of an undisturbed evaluation by `golf eval` or torchrun: do not write into it."""
    folder, done = tmp_path_factory.mktemp("without_ray"), set()

    def run(num_ranks: int) -> Path:
        out = folder / f"ranks{num_ranks}"
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"]
        launcher = [sys.executable, *(torchrun if num_ranks > 1 else [])]
        if num_ranks not in done:
            words = [*launcher, "-m", "golf", "eval", *command(out)]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(words, check=True, capture_output=True, env=env)
            done.add(num_ranks)
        return out

    return run


@pytest.fixture(scope="session")
def ray_is_up() -> Iterator[None]:
    # pytest's own folders lie too deep for sockets.
    with (
        tempfile.TemporaryDirectory(prefix="golf-ray-") as folder,
        private_ray(Path(folder), num_cpus=4, num_gpus=0),
    ):
        yield


@pytest.fixture
def fan_out(ray_is_up: None, job_file: Path, tiny_data: DataPaths, tiny_job: Job) -> FanOut:
    """Evaluate over `workers` Ray workers, with `adapters` by the pipelined schedule.

    `group_class` may disturb them.
    """
    from golf.config import load_job

    def run(
        out: Path,
        workers: int = 2,
        resume: bool = False,
        max_recoveries: int = 3,
        group_class: type[RayWorkers] | None = None,
        overrides: tuple[str, ...] = (),
        adapters: int = 0,
    ) -> dict[str, Any]:
        overrides += ("ttt.schedule=pipelined",) if adapters else ()
        options = EvalOptions(
            job=load_job(job_file, overrides),
            protocol="ttt",
            out=out,
            dtype=torch.float32,
            save_nll=True,
            resume=resume,
        )
        spec = RankSpec(
            options=options,
            data=tiny_data,
            tokenizer=None,
            weights=job_file.with_name("w.safetensors"),
            device="cpu",
            world_size=workers,
            num_threads=1,
            adapters=adapters,
        )
        if adapters:
            spec = replace(spec, run_ahead=run_ahead_of(spec, adapters))
        made: Any = (group_class or (PipelinedGroup if adapters else RayGroup))(
            spec, max_recoveries, call_timeout_s=300.0
        )
        try:
            return evaluate_with(made, options, spec.load_validation(), lambda line: None)
        finally:
            made.close()

    return run
