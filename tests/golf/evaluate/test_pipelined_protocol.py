"""In whatever order a pipeline's outcomes come, the numbers are the strict ones; forgeries fail."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golf.config import Job
from golf.distributed import Ranks
from golf.evaluate.group import LocalGroup, ReplicasLostError
from golf.evaluate.ledger import LegalityError, encode_line, line_hash
from golf.evaluate.options import EvalOptions
from golf.evaluate.pipelined import Scored, Task, Trained
from golf.evaluate.provenance import ProvenanceLedger
from golf.evaluate.run import evaluate, evaluate_with
from golf.evaluate.validation import ValidationSet
from golf.evaluate.verify import verify
from golf.evaluate.windows import plan_windows, split_chunks
from golf.records import EvalPaths, read_json, read_lines

ALONE = Ranks(0, 1, torch.device("cpu"))
Lines = list[dict[str, Any]]


class LocalPipeline:
    """One adapter and one scorer in this process, whose outcomes come in an order of our choice."""

    is_main, num_scorers = True, 3

    def __init__(self, make: Callable[[], LocalGroup], seed: int, run_ahead: int = 4) -> None:
        self.make, self.random, self.run_ahead = make, random.Random(seed), run_ahead
        self.lose_at: int | None = None
        self.rebuilt = 0
        self._begin()
        self.facts = self.adapter.facts

    def _begin(self) -> None:
        self.adapter, self.scorer = self.make(), self.make()
        self.trained: list[Trained] = []
        self.scored: list[Scored] = []

    def submit(self, task: Task) -> None:
        if task.windows is not None:
            for held, values in zip(
                self.scorer.replica.flat.values, self.adapter.replica.flat.values, strict=True
            ):
                held.copy_(values)
            nll = self.scorer.replica.score_alone(task.windows, 1)
            weights = self.scorer.digest()
            self.scored.append(Scored(chunk=task.chunk, nll=nll, weights=weights))
        if task.train is not None:
            steps = self.adapter.adapt(*task.train)
            weights = self.adapter.digest()
            self.trained.append(Trained(chunk=task.chunk, steps=steps, weights=weights))
            if task.save:
                self.adapter.save(task.chunk + 1, task.needed)

    def collect(self) -> Trained | Scored:
        if self.lose_at is not None and self.trained and self.trained[0].chunk == self.lose_at:
            self.lose_at = None
            raise ReplicasLostError("a worker died")
        if self.trained and (not self.scored or self.random.random() < 0.7):
            return self.trained.pop(0)
        return self.scored.pop(self.random.randrange(len(self.scored)))

    def digest(self) -> str:
        return self.adapter.digest()

    def restore(self, limit: int | None = None) -> int:
        return self.adapter.restore(limit)

    def rebuild(self, lost: ReplicasLostError) -> None:
        self.adapter.settle()
        self.rebuilt += 1
        self._begin()

    def settle(self) -> None:
        self.adapter.settle()

    def barrier(self) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="session")
def pipelined_job(tiny_job: Job) -> Job:
    return replace(tiny_job, ttt=replace(tiny_job.ttt, schedule="pipelined", checkpoint_chunks=2))


@pytest.fixture(scope="session")
def pipeline_at(
    pipelined_job: Job, weights: dict[str, Tensor], validation: ValidationSet
) -> Callable[..., LocalPipeline]:
    def make(out: Path, seed: int = 0, **changes: Any) -> LocalPipeline:
        return LocalPipeline(
            lambda: LocalGroup(_options(pipelined_job, out), weights, validation.tokens, ALONE),
            seed,
            **changes,
        )

    return make


def _options(job: Job, out: Path, resume: bool = False) -> EvalOptions:
    return EvalOptions(
        job=job, protocol="ttt", out=out, dtype=torch.float32, save_nll=True, resume=resume
    )


@pytest.fixture(scope="session")
def run(pipelined_job: Job, validation: ValidationSet):
    def run_over(pipeline: LocalPipeline, out: Path) -> dict[str, Any]:
        return evaluate_with(pipeline, _options(pipelined_job, out), validation, lambda line: None)

    return run_over


def numbers(folder: Path) -> tuple[bytes, dict[str, Any], dict[tuple[str, int], Any]]:
    """Scores, result and the content of each line, whatever their order."""
    result = read_json(EvalPaths(folder).result)
    kept = ("val_loss", "val_bpb", "tokens", "bytes", "nll_sum_nats", "world_size", "weights")
    of_order = ("previous", "trained_chunks")
    lines = {
        (line["kind"], line["chunk"]): {k: v for k, v in line.items() if k not in of_order}
        for line in read_lines(EvalPaths(folder).ledger)
    }
    return (folder / "nll.npy").read_bytes(), {k: result[k] for k in kept}, lines


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_outcomes_gives_the_strict_numbers(
    run, pipeline_at, finished_ttt: Path, tmp_path: Path, seed: int
):
    result = run(pipeline_at(tmp_path, seed), tmp_path)
    assert result["schedule"] == "pipelined"
    assert numbers(tmp_path) == numbers(finished_ttt)
    assert all(verdict.ok for verdict in verify(tmp_path))


def test_lines_are_written_as_things_happen(run, pipeline_at, tmp_path: Path):
    """Else the tests above would have shown nothing: chunks are trained on before their scores."""
    orders = set()
    for seed in range(6):
        run(pipeline_at(tmp_path / str(seed), seed), tmp_path / str(seed))
        lines = read_lines(EvalPaths(tmp_path / str(seed)).ledger)
        orders.add(tuple((line["kind"], line["chunk"]) for line in lines))
    assert len(orders) > 3
    assert any(("train", c) in o[: o.index(("score", c))] for o in orders for c in range(5))


@pytest.mark.parametrize("lose_at", range(5))
@pytest.mark.parametrize("run_ahead", [1, 5])
def test_a_lost_group_goes_on_from_a_checkpoint_that_can_score_what_is_left(
    run, pipeline_at, finished_ttt: Path, tmp_path: Path, lose_at: int, run_ahead: int
):
    pipeline = pipeline_at(tmp_path, lose_at, run_ahead=run_ahead)
    pipeline.lose_at = lose_at
    result = run(pipeline, tmp_path)
    assert (pipeline.rebuilt, len(result["recoveries"])) == (1, 1)
    assert numbers(tmp_path) == numbers(finished_ttt)
    assert all(verdict.ok for verdict in verify(tmp_path))


@pytest.mark.parametrize("num_lines", range(12))
def test_a_cut_evaluation_resumes_with_the_same_numbers(
    run, pipeline_at, pipelined_job, validation, finished_ttt, tmp_path: Path, num_lines: int
):
    run(pipeline_at(tmp_path, 3), tmp_path)
    paths = EvalPaths(tmp_path)
    kept = paths.ledger.read_bytes().splitlines(keepends=True)[:num_lines]
    paths.ledger.write_bytes(b"".join(kept))
    (tmp_path / "nll.partial").write_bytes(np.load(paths.nll).tobytes())
    paths.result.unlink()
    options = _options(pipelined_job, tmp_path, resume=True)
    evaluate_with(pipeline_at(tmp_path, 4), options, validation, lambda line: None)
    assert numbers(tmp_path) == numbers(finished_ttt)
    assert all(verdict.ok for verdict in verify(tmp_path))


def test_scores_that_did_not_reach_the_disk_are_noticed_on_a_resume(
    run, pipeline_at, pipelined_job, validation, tmp_path: Path
):
    run(pipeline_at(tmp_path), tmp_path)
    EvalPaths(tmp_path).result.unlink()
    nll = np.load(EvalPaths(tmp_path).nll)
    nll[300] = 0
    (tmp_path / "nll.partial").write_bytes(nll.tobytes())
    with pytest.raises(ValueError, match="does not hold the scores of chunk 1"):
        evaluate_with(
            pipeline_at(tmp_path),
            _options(pipelined_job, tmp_path, resume=True),
            validation,
            lambda line: None,
        )


def test_one_process_refuses_the_schedule(pipelined_job, weights, validation, tmp_path: Path):
    with pytest.raises(ValueError, match=r"python -m launcher\.fanout --workers N"):
        evaluate(_options(pipelined_job, tmp_path), weights, validation, ALONE)


# ---- what the ledger refuses ----


@pytest.fixture
def ledger(pipelined_job: Job, validation: ValidationSet) -> ProvenanceLedger:
    grid = plan_windows(len(validation.tokens), pipelined_job.evaluate, "ttt")
    chunks = split_chunks(grid, pipelined_job.ttt.chunk_tokens)
    return ProvenanceLedger(None, "plan", "theta0", chunks)


def score(ledger: ProvenanceLedger, index: int, weights: str) -> None:
    ledger.score_by(chunk=ledger.chunks[index], nll_sum=1.0, num_bytes=9, weights=weights)


def train(ledger: ProvenanceLedger, index: int) -> None:
    ledger.train(chunk=index, start=0, end=1, lr=0.1, steps=1, weights=f"theta{index + 1}")


def test_the_ledger_takes_any_order_that_provenance_allows(ledger: ProvenanceLedger):
    for index in range(5):
        train(ledger, index)
    for index in (4, 0, 5, 2, 3, 1):
        score(ledger, index, f"theta{index}")
    assert (ledger.first_unscored, ledger.num_trained) == (6, 5)


def test_the_ledger_refuses_weights_that_have_seen_the_chunk_or_too_little(
    ledger: ProvenanceLedger,
):
    train(ledger, 0)
    train(ledger, 1)
    for weights in ("theta2", "theta0", "foreign"):
        with pytest.raises(LegalityError, match="exactly the 1 chunks before it"):
            score(ledger, 1, weights)
    with pytest.raises(LegalityError, match="exactly the 3 chunks before it"):
        score(ledger, 3, "theta3")


def test_the_ledger_refuses_a_chunk_scored_twice_and_training_out_of_turn(
    ledger: ProvenanceLedger,
):
    score(ledger, 0, "theta0")
    with pytest.raises(LegalityError, match="scored twice"):
        score(ledger, 0, "theta0")
    for index in (1, 5):
        with pytest.raises(LegalityError, match="out of turn: 0 is next"):
            train(ledger, index)


# ---- what the verifier refuses, of a forger who mends all hashes ----


@pytest.fixture(scope="session")
def finished(run, pipeline_at, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pipelined") / "ttt"
    run(pipeline_at(out, 3), out)
    return out


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def failures(folder: Path) -> set[str]:
    return {verdict.name for verdict in verify(folder) if not verdict.ok}


def forge(folder: Path, change: Callable[[Lines], Lines]) -> None:
    paths = EvalPaths(folder)
    lines = change(read_lines(paths.ledger))
    head = hashlib.sha256(paths.plan.read_bytes()).hexdigest()
    for line in lines:
        line["previous"] = head
        head = line_hash(encode_line(line))
    paths.result.write_text(json.dumps({**read_json(paths.result), "ledger_head": head}))
    paths.ledger.write_bytes(b"".join(encode_line(line) + b"\n" for line in lines))


def find(lines: Lines, kind: str, chunk: int) -> dict[str, Any]:
    return next(line for line in lines if (line["kind"], line["chunk"]) == (kind, chunk))


def test_scores_by_weights_that_have_trained_on_the_chunk_are_noticed(folder: Path):
    def peek(lines: Lines) -> Lines:
        find(lines, "score", 2)["weights"] = find(lines, "train", 2)["weights"]
        return lines

    forge(folder, peek)
    assert failures(folder) == {"lineage"}


def test_scores_said_to_have_seen_other_chunks_are_noticed(folder: Path):
    def peek(lines: Lines) -> Lines:
        find(lines, "score", 2)["trained_chunks"] = 3
        return lines

    forge(folder, peek)
    assert failures(folder) == {"lineage"}


def test_scores_by_older_or_foreign_weights_are_noticed(folder: Path):
    def older(lines: Lines) -> Lines:
        find(lines, "score", 2)["weights"] = find(lines, "train", 0)["weights"]
        return lines

    forge(folder, older)
    assert failures(folder) == {"lineage"}


@pytest.mark.parametrize("kind", ["score", "train"])
def test_a_missing_a_doubled_and_a_swapped_line_are_noticed(folder: Path, kind: str):
    untouched = EvalPaths(folder).ledger.read_bytes()
    lines = [line for line in read_lines(EvalPaths(folder).ledger) if line["kind"] == kind]

    def missing(all_lines: Lines) -> Lines:
        return [line for line in all_lines if line != lines[2]]

    def doubled(all_lines: Lines) -> Lines:
        return [*all_lines, dict(lines[2])]

    for change in (missing, doubled):
        EvalPaths(folder).ledger.write_bytes(untouched)
        forge(folder, change)
        assert "order" in failures(folder), change


def test_a_score_before_its_weights_and_training_out_of_turn_are_noticed(folder: Path):
    untouched = EvalPaths(folder).ledger.read_bytes()

    def too_early(lines: Lines) -> Lines:
        line = find(lines, "score", 3)
        return [line, *(other for other in lines if other is not line)]

    def out_of_turn(lines: Lines) -> Lines:
        line = find(lines, "train", 3)
        return [line, *(other for other in lines if other is not line)]

    for change in (too_early, out_of_turn):
        EvalPaths(folder).ledger.write_bytes(untouched)
        forge(folder, change)
        assert "order" in failures(folder), change


@pytest.mark.parametrize("field", ["start", "end", "tokens", "nll_sum", "bytes", "chunk"])
def test_a_changed_number_of_a_score_is_noticed(folder: Path, field: str):
    def changed(lines: Lines) -> Lines:
        find(lines, "score", 2)[field] += 1
        return lines

    forge(folder, changed)
    assert failures(folder)


def test_calling_it_strict_does_not_help(folder: Path):
    """A pipelined ledger whose plan is rewritten fails by the strict order, and by its settings."""
    plan = EvalPaths(folder).plan
    plan.write_text(plan.read_text().replace('"schedule": "pipelined"', '"schedule": "strict"'))
    forge(folder, lambda lines: lines)
    assert {"order", "lineage"} <= failures(folder)
    result = EvalPaths(folder).result
    assert "totals" in failures(folder), "result.json says pipelined"
    result.write_text(result.read_text().replace('"pipelined"', '"strict"'))
    assert "order" in failures(folder)


def test_every_single_changed_byte_is_noticed(folder: Path):
    path = EvalPaths(folder).ledger
    honest = path.read_bytes()
    for position in range(0, len(honest), 41):
        forged = bytearray(honest)
        forged[position] ^= 1
        path.write_bytes(forged)
        assert failures(folder), position
