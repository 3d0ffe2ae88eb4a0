"""A model of random weights over the tiny validation set, evaluated and interrupted at will."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from golf.config import Job
from golf.distributed import Ranks
from golf.evaluate.options import EvalOptions
from golf.evaluate.run import evaluate
from golf.evaluate.validation import ValidationSet
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt
from golf.records import DataPaths

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def weights(tiny_job: Job) -> dict[str, Tensor]:
    """Weights with which every part of the model has a say."""
    torch.manual_seed(5)
    model = build_gpt(tiny_job.model, choose_backend(CPU, torch.float32), CPU, torch.float32)
    return {n: p.detach() + 0.1 * torch.randn_like(p) for n, p in model.named_parameters()}


@pytest.fixture(scope="session")
def validation(tiny_data: DataPaths, tiny_job: Job) -> ValidationSet:
    """About 1,500 tokens of the held-out chapter."""
    whole = ValidationSet.load(tiny_data, tiny_job.model.vocab_size)
    return replace(whole, tokens=whole.tokens[:1501])


@pytest.fixture
def run_evaluation(
    tiny_job: Job, weights: dict[str, Tensor], validation: ValidationSet
) -> Evaluate:
    """`evaluate` with everything but the options filled in."""

    def run(protocol: str, out: Path, job: Job = tiny_job, **options: Any) -> dict[str, Any]:
        tell = options.pop("tell", lambda line: None)
        scored = options.pop("validation", validation)
        filled = EvalOptions(job=job, protocol=protocol, out=out, dtype=torch.float32, **options)
        return evaluate(filled, weights, scored, ALONE, tell)

    return run


@pytest.fixture(scope="session")
def finished_ttt(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_job: Job,
    weights: dict[str, Tensor],
    validation: ValidationSet,
) -> Path:
    """The folder of an undisturbed `ttt` evaluation: do not write into it."""
    out = tmp_path_factory.mktemp("finished") / "ttt"
    options = EvalOptions(job=tiny_job, protocol="ttt", out=out, dtype=torch.float32, save_nll=True)
    evaluate(options, weights, validation, ALONE)
    return out
