"""An evaluation can be cut off anywhere and gives the same numbers, bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golf.config import ConfigError, Job
from golf.evaluate.ledger import LegalityError
from golf.evaluate.run import _Evaluation
from golf.evaluate.verify import verify
from golf.records import EvalPaths, RunError, read_json, read_lines
from golf.weights import WeightsError


class CutError(Exception):
    """The machine goes down."""


def cut_after(monkeypatch: pytest.MonkeyPatch, where: str, chunk: int) -> None:
    """Let the evaluation die when `where` (an observer's method) is called for `chunk`."""
    original = getattr(_Evaluation, where)

    def dying(self: _Evaluation, at: object, *more: object) -> None:
        if at.index == chunk:  # type: ignore[attr-defined]
            raise CutError
        original(self, at, *more)

    monkeypatch.setattr(_Evaluation, where, dying)


@pytest.mark.parametrize("where", ["scored", "finished"])
@pytest.mark.parametrize("chunk", [0, 2, 3, 5])
def test_a_cut_ttt_resumes_with_the_same_numbers(
    run_evaluation, finished_ttt: Path, tmp_path: Path, monkeypatch, where: str, chunk: int
):
    out = tmp_path / "ttt"
    with monkeypatch.context() as patched:
        cut_after(patched, where, chunk)
        with pytest.raises(CutError):
            run_evaluation("ttt", out, save_nll=True)
    assert not EvalPaths(out).result.exists()
    result = run_evaluation("ttt", out, save_nll=True, resume=True)
    undisturbed = read_json(EvalPaths(finished_ttt).result)
    assert {**result, "seconds": 0} == {**undisturbed, "seconds": 0}
    for name in ("ledger.jsonl", "nll.npy"):
        assert (out / name).read_bytes() == (finished_ttt / name).read_bytes()
    assert all(verdict.ok for verdict in verify(out))


@pytest.mark.parametrize("protocol", ["sequential", "sliding"])
def test_a_cut_scoring_resumes_with_the_same_numbers(
    run_evaluation, tmp_path: Path, monkeypatch, protocol: str
):
    undisturbed = run_evaluation(protocol, tmp_path / "whole")
    with monkeypatch.context() as patched:
        cut_after(patched, "finished", 2)
        with pytest.raises(CutError):
            run_evaluation(protocol, tmp_path / "cut")
    result = run_evaluation(protocol, tmp_path / "cut", resume=True)
    assert {**result, "seconds": 0} == {**undisturbed, "seconds": 0}
    assert not EvalPaths(tmp_path / "cut").ledger.exists()


def test_half_a_ledger_line_does_not_count(run_evaluation, finished_ttt, tmp_path, monkeypatch):
    out = tmp_path / "ttt"
    with monkeypatch.context() as patched:
        cut_after(patched, "finished", 2)
        with pytest.raises(CutError):
            run_evaluation("ttt", out)
    ledger = EvalPaths(out).ledger
    ledger.write_bytes(ledger.read_bytes()[:-20])
    run_evaluation("ttt", out, resume=True)
    assert ledger.read_bytes() == (finished_ttt / "ledger.jsonl").read_bytes()


def test_saved_scores_sum_to_the_result(run_evaluation, tmp_path: Path):
    result = run_evaluation("sliding", tmp_path / "out", save_nll=True)
    nll = np.load(EvalPaths(tmp_path / "out").nll)
    assert nll.dtype == np.float32
    assert len(nll) == result["tokens"]
    assert nll.sum(dtype=np.float64) == pytest.approx(result["nll_sum_nats"], rel=1e-12)


def test_bpb_is_pooled_over_all_bytes(run_evaluation, tmp_path: Path):
    result = run_evaluation("sequential", tmp_path / "out")
    bits = result["nll_sum_nats"] / np.log(2)
    assert result["val_bpb"] == pytest.approx(bits / result["bytes"], rel=1e-12)
    assert result["val_loss"] == pytest.approx(result["nll_sum_nats"] / result["tokens"])


def test_adapting_helps_and_frozen_blocks_stay(run_evaluation, tiny_job: Job, tmp_path: Path):
    frozen = replace(tiny_job, ttt=replace(tiny_job.ttt, freeze_blocks=2))
    sliding = run_evaluation("sliding", tmp_path / "sliding")
    ttt = run_evaluation("ttt", tmp_path / "ttt")
    partly = run_evaluation("ttt", tmp_path / "partly", job=frozen)
    assert ttt["val_loss"] < partly["val_loss"] < sliding["val_loss"]


def test_the_first_chunk_scores_as_without_adaptation(run_evaluation, tmp_path: Path):
    run_evaluation("sliding", tmp_path / "sliding")
    run_evaluation("ttt", tmp_path / "ttt")
    plain = read_lines(tmp_path / "sliding" / "scores.jsonl")[0]
    adapted = read_lines(tmp_path / "ttt" / "ledger.jsonl")[0]
    assert plain["nll_sum"] == adapted["nll_sum"]


def test_a_finished_evaluation_is_not_repeated(run_evaluation, finished_ttt, tmp_path):
    out = tmp_path / "ttt"
    shutil.copytree(finished_ttt, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    told: list[str] = []
    result = run_evaluation("ttt", out, resume=True, tell=told.append)
    assert result == read_json(EvalPaths(out).result)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "already evaluated" in told[0]


def test_a_folder_in_use_is_not_written_to_without_resume(run_evaluation, tmp_path: Path):
    run_evaluation("sequential", tmp_path / "out")
    with pytest.raises(RunError, match="--resume"):
        run_evaluation("sequential", tmp_path / "out")


def test_resuming_under_other_settings_names_them(
    run_evaluation, tiny_job: Job, tmp_path: Path, monkeypatch
):
    with monkeypatch.context() as patched:
        cut_after(patched, "finished", 1)
        with pytest.raises(CutError):
            run_evaluation("ttt", tmp_path / "out")
    other = replace(tiny_job, ttt=replace(tiny_job.ttt, lr=0.5))
    with pytest.raises(ConfigError, match="other ttt; resume it as it was begun"):
        run_evaluation("ttt", tmp_path / "out", job=other, resume=True)


def test_a_resume_whose_training_comes_out_differently_is_refused(
    run_evaluation, tmp_path: Path, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        cut_after(patched, "finished", 1)
        with pytest.raises(CutError):
            run_evaluation("ttt", out)
        patched.undo()
        patched.setattr("golf.evaluate.ttt.learning_rate", lambda *_: 0.0123)
        with pytest.raises(LegalityError, match="other weights than before"):
            run_evaluation("ttt", out, resume=True)


def test_a_damaged_checkpoint_is_named(run_evaluation, tmp_path: Path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        cut_after(patched, "finished", 4)
        with pytest.raises(CutError):
            run_evaluation("ttt", out)
    (checkpoint,) = EvalPaths(out).checkpoints.glob("chunk-*")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"chunk-00000003.*delete it to resume"):
        run_evaluation("ttt", out, resume=True)


def test_training_before_scoring_cannot_even_be_configured(tiny_job: Job):
    from golf.config import job_from_sections, job_to_sections

    with pytest.raises(ConfigError, match="must be one of 'strict', 'pipelined'"):
        job_from_sections(job_to_sections(tiny_job), ["ttt.schedule=pre-eval"])


def test_progress_tells_where_the_evaluation_stands(run_evaluation, tmp_path: Path):
    result = run_evaluation("ttt", tmp_path / "out")
    progress = json.loads(EvalPaths(tmp_path / "out").progress.read_text())
    assert progress["chunk"] == progress["num_chunks"] == result["num_chunks"]
    assert progress["tokens"] == progress["num_tokens"] == result["tokens"]
    assert progress["val_bpb"] == result["val_bpb"]


@pytest.mark.parametrize("protocol", ["sequential", "sliding", "ttt"])
@pytest.mark.parametrize("position", [1, 255, 256, 700, 1500])
def test_a_changed_token_changes_no_score_before_it(
    run_evaluation, validation, tmp_path: Path, protocol: str, position: int
):
    """Token t is the answer of scored position t - 1; positions before that must not move."""
    run_evaluation(protocol, tmp_path / "as_it_is", save_nll=True)
    changed = validation.tokens.copy()
    changed[position] = (changed[position] + 7) % 300
    run_evaluation(
        protocol,
        tmp_path / "changed",
        save_nll=True,
        validation=replace(validation, tokens=changed),
    )
    before, after = (np.load(tmp_path / name / "nll.npy") for name in ("as_it_is", "changed"))
    assert np.array_equal(before[: position - 1], after[: position - 1])
    assert not np.array_equal(before[position - 1 :], after[position - 1 :])


def test_a_run_cut_before_its_result_still_resumes_with_its_scores(
    run_evaluation, finished_ttt: Path, tmp_path: Path, monkeypatch
):
    """All chunks are done and `nll.npy` is written, but the result is not."""
    out = tmp_path / "ttt"
    with monkeypatch.context() as patched:
        patched.setattr(_Evaluation, "_result", _cut)
        with pytest.raises(CutError):
            run_evaluation("ttt", out, save_nll=True)
        patched.undo()
        patched.setattr("golf.evaluate.progress.Progress.write", _cut)
        with pytest.raises(CutError):
            run_evaluation("ttt", out, save_nll=True, resume=True)
    assert (out / "nll.npy").exists()
    run_evaluation("ttt", out, save_nll=True, resume=True)
    for name in ("plan.json", "ledger.jsonl", "nll.npy"):
        assert (out / name).read_bytes() == (finished_ttt / name).read_bytes()
    assert not (out / "nll.partial").exists()


def _cut(*_: object) -> None:
    raise CutError
