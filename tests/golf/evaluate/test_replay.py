"""Chunks that are repeated give what the ledger says, and betray what was made up."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from golf.checkpoints import Checkpoints
from golf.config import ConfigError, Job
from golf.distributed import Ranks
from golf.evaluate.group import LocalGroup
from golf.evaluate.ledger import encode_line, line_hash
from golf.evaluate.replay import replay
from golf.evaluate.replica import Replica
from golf.evaluate.ttt import Nats
from golf.evaluate.validation import ValidationSet
from golf.evaluate.verify import Verdict, verify
from golf.records import EvalPaths, read_json, read_lines, write_json

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def finished(run_evaluation, tiny_job: Job, tmp_path: Path) -> Path:
    """An evaluation of six chunks that keeps its checkpoints, after two and after four."""
    job = replace(tiny_job, ttt=replace(tiny_job.ttt, checkpoint_chunks=2, keep_checkpoints=0))
    run_evaluation("ttt", tmp_path / "ttt", job=job)
    return tmp_path / "ttt"


def replay_all(
    folder: Path, weights: dict[str, Tensor], validation: ValidationSet, count: int = 99
) -> Verdict:
    return replay(folder, count, 0, weights, validation, ALONE)


def forge(folder: Path, number: int, **changes: object) -> None:
    """Change a line and mend the chain and the result, so that the ledger alone looks sound."""
    paths = EvalPaths(folder)
    lines = read_lines(paths.ledger)
    lines[number] |= changes
    for before, line in zip(lines[number:], lines[number + 1 :], strict=False):
        line["previous"] = line_hash(encode_line(before))
    paths.ledger.write_bytes(b"".join(encode_line(line) + b"\n" for line in lines))
    scores = [line for line in lines if line["kind"] == "score"]
    result = read_json(paths.result)
    result["nll_sum_nats"] = sum(line["nll_sum"] for line in scores)
    result["val_loss"] = result["nll_sum_nats"] / result["tokens"]
    result["val_bpb"] = result["nll_sum_nats"] / 0.6931471805599453 / result["bytes"]
    write_json(paths.result, result | {"ledger_head": line_hash(encode_line(lines[-1]))})


def test_every_chunk_comes_out_the_same(finished: Path, weights, validation):
    verdict = replay_all(finished, weights, validation)
    assert verdict.ok, verdict.problem
    assert verdict.note == "chunks 0, 1, 2, 3, 4, 5: bit for bit"


def test_a_chunk_is_reached_from_the_nearest_checkpoint(
    finished: Path, weights, validation, monkeypatch
):
    trained: list[int] = []
    adapt = Replica.adapt

    def spying(self: Replica, start: int, num_rows: int, lr: float) -> int:
        trained.append(start)
        return adapt(self, start, num_rows, lr)

    monkeypatch.setattr(Replica, "adapt", spying)
    monkeypatch.setattr("random.Random.sample", lambda self, chunks, k: [chunks[5]])
    assert replay_all(finished, weights, validation, 1).note == "chunks 5: bit for bit"
    assert trained == [4 * 256]


def test_without_checkpoints_it_starts_from_the_weights(finished: Path, weights, validation):
    shutil.rmtree(EvalPaths(finished).checkpoints)
    assert replay_all(finished, weights, validation, 2).ok


def test_made_up_scores_are_found(finished: Path, weights, validation):
    line = read_lines(EvalPaths(finished).ledger)[4]
    forge(finished, 4, nll_sum=line["nll_sum"] - 1e-3)
    assert all(verdict.ok for verdict in verify(finished))
    problem = replay_all(finished, weights, validation).problem
    assert problem is not None
    assert problem.startswith("chunk 2 scores")


def test_made_up_weights_are_found(finished: Path, weights, validation):
    for number, kind in ((3, "train"), (4, "score")):
        assert read_lines(EvalPaths(finished).ledger)[number]["kind"] == kind
        forge(finished, number, weights="0" * 64)
    assert all(verdict.ok for verdict in verify(finished))
    problem = replay_all(finished, weights, validation).problem
    assert problem == "training on chunk 1 leaves other weights than the ledger says"


def test_a_swapped_checkpoint_is_found(finished: Path, weights, validation):
    checkpoints = Checkpoints(EvalPaths(finished).checkpoints, "chunk", 0)
    other = checkpoints.load_before(2)
    assert other is not None
    shutil.rmtree(checkpoints.folder)
    checkpoints.save(4, other.tensors, {"trained_chunks": "4"})
    verdict = replay(finished, 1, _seed_that_draws(5), weights, validation, ALONE)
    assert verdict.problem == ("the checkpoint after 4 chunks holds other weights than the ledger")


def _seed_that_draws(chunk: int) -> int:
    return next(s for s in range(99) if random.Random(s).sample(range(6), 1) == [chunk])


def test_other_weights_or_data_are_refused(finished: Path, weights, validation):
    with pytest.raises(ConfigError, match="other weights than those evaluated"):
        replay_all(finished, {n: t + 1 for n, t in weights.items()}, validation)
    with pytest.raises(ConfigError, match="--data holds other tokens"):
        replay_all(finished, weights, replace(validation, tokens=validation.tokens[:-1]))


def test_with_another_number_of_ranks_scores_are_compared_within_a_tolerance(
    finished: Path, weights, validation
):
    plan = EvalPaths(finished).plan
    plan.write_text(json.dumps(read_json(plan) | {"world_size": 2}))
    verdict = replay_all(finished, weights, validation)
    assert verdict.ok
    assert "within 0.0001 nats a token" in verdict.note


def test_a_machine_of_other_bits_compares_within_the_tolerance(
    finished: Path, weights, validation, monkeypatch: pytest.MonkeyPatch
):
    """As with more threads, whose sums have another order; here every score is off by a little."""
    score = LocalGroup.score

    def slightly_off(self: LocalGroup, windows: range) -> Nats:
        return score(self, windows) * np.float32(1 + 1e-6)

    monkeypatch.setattr(LocalGroup, "score", slightly_off)
    verdict = replay_all(finished, weights, validation)
    assert verdict.ok
    assert verdict.note.endswith("scores within 0.0001 nats a token")
    forge(finished, 4, nll_sum=read_lines(EvalPaths(finished).ledger)[4]["nll_sum"] - 1)
    problem = replay_all(finished, weights, validation).problem
    assert problem is not None
    assert problem.startswith("chunk 2 scores")
