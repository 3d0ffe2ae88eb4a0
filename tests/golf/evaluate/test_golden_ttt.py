"""Sliding and score-first evaluation against the public implementation, token by token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golf.config import job_from_sections
from golf.data.tokenizer import ByteTable
from golf.distributed import Ranks
from golf.evaluate.ledger import Ledger
from golf.evaluate.replica import Replica
from golf.evaluate.ttt import ChunkedEvaluation
from golf.evaluate.validation import ValidationSet
from golf.evaluate.windows import plan_windows, split_chunks
from golf.model.attention import choose_backend
from golf.model.gpt import build_gpt

CPU = torch.device("cpu")


@dataclass
class Keep:
    """An observer that keeps the scores."""

    nll: list[Any] = field(default_factory=list)

    def scored(self, chunk: Any, nll: Any) -> None:
        self.nll.append(nll)

    def finished(self, chunk: Any) -> None:
        pass


@dataclass
class Outcome:
    golden: Any
    nll: Any
    totals: Any
    replica: Replica
    ledger: Ledger


@pytest.fixture(params=["sliding", "ttt"])
def outcome(request: pytest.FixtureRequest, golden_dir: Path) -> Outcome:
    golden = np.load(golden_dir / "ttt.npz")
    hp = json.loads(str(golden["hp"]))
    job = job_from_sections(
        {
            "model": json.loads(str(golden["config"])),
            "evaluate": {"eval_seq_len": hp["seq_len"], "stride": hp["stride"]},
            "ttt": {
                key: hp[key]
                for key in ("chunk_tokens", "lr", "momentum", "epochs", "batch_seqs", "grad_clip")
            },
        }
    )
    model = build_gpt(job.model, choose_backend(CPU, torch.float32), CPU, torch.float32)
    model.load_state_dict(
        {key[2:]: torch.tensor(golden[key]) for key in golden.files if key.startswith("w/")}
    )
    table = ByteTable(golden["base_bytes"], golden["lead"], golden["boundary"])
    tokens = golden["tokens"].astype(np.uint16)
    validation = ValidationSet(tokens, table, Path("unused"))
    grid = plan_windows(len(tokens), job.evaluate, request.param)
    replica = Replica(model, tokens, grid, Ranks(0, 1, CPU), job)
    ledger, keep = Ledger(None, "plan", replica.digest()), Keep()
    evaluation = ChunkedEvaluation(
        split_chunks(grid, job.ttt.chunk_tokens),
        replica,
        ledger,
        validation.count_bytes,
        grid.seq_len,
        job.ttt if request.param == "ttt" else None,
    )
    totals = evaluation.run(keep)
    wanted = {"nll": golden[f"{request.param}_nll"], "totals": golden[request.param]}
    if request.param == "ttt":
        wanted |= {"lrs": golden["lrs"]}
        wanted |= {"weights": {k[5:]: golden[k] for k in golden.files if k.startswith("wend/")}}
    return Outcome(wanted, np.concatenate(keep.nll), totals, replica, ledger)


def test_every_token_scores_as_published(outcome: Outcome):
    np.testing.assert_allclose(outcome.nll, outcome.golden["nll"], atol=5e-5)


def test_loss_bpb_and_bytes_are_the_published_ones(outcome: Outcome):
    val_loss, val_bpb, num_bytes = outcome.golden["totals"]
    assert outcome.totals.val_loss == pytest.approx(val_loss, abs=5e-6)
    assert outcome.totals.val_bpb == pytest.approx(val_bpb, abs=2e-6)
    assert outcome.totals.bytes == num_bytes


def test_learning_rates_and_final_weights_are_the_published_ones(outcome: Outcome):
    if "weights" not in outcome.golden:
        assert all(line["kind"] == "score" for line in outcome.ledger.lines)
        return
    lrs = [line["lr"] for line in outcome.ledger.lines if line["kind"] == "train"]
    np.testing.assert_allclose(lrs, outcome.golden["lrs"], rtol=1e-12)
    final = outcome.replica.flat.unflatten(outcome.replica.flat.values)
    for name, wanted in outcome.golden["weights"].items():
        difference = np.linalg.norm(final[name].numpy() - wanted)
        assert difference <= 1e-4 * max(np.linalg.norm(wanted), 1e-3), name
