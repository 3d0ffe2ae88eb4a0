"""The challenge's logs and submissions, real ones where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.reporting.challenge_logs import LogPatterns, read_logs, read_patterns, read_submission

SOURCE = """\
import torch
seed: 99
log0("legal_ttt_exact val_loss:1.0 val_bpb:0.5")
def main():
    # legal_ttt_exact val_loss:1.00000000 val_bpb:0.50000000 eval_time:1ms
legal_ttt_exact val_loss:1.00000000 val_bpb:0.50000000 eval_time:1ms
"""
LOG = """\
val_loader:shards pattern=val_*.bin tokens:62021632
seed:7
stopping_early: wallclock_cap train_time:600036ms step:7096/20000
Total submission size int6+zstd: 15555017 bytes
final_int6_roundtrip_exact val_loss:1.93592275 val_bpb:1.14656250
final_int6_sliding_window val_loss:1.8958 val_bpb:1.1228 stride:64 eval_time:73133ms
final_int6_sliding_window_exact val_loss:1.89576235 val_bpb:1.12278022
final_int8_zlib_roundtrip_exact val_loss:1.89576235 val_bpb:1.12278022
"""


def test_the_last_evaluation_of_the_pipeline_counts_and_its_own_time(tmp_path: Path) -> None:
    (tmp_path / "train_seed7.log").write_text(LOG)
    scores = read_logs(tmp_path, LogPatterns())
    (seed,) = scores.seeds.values()
    assert list(scores.seeds) == [7]
    assert (seed.val_bpb, seed.eval_seconds, seed.steps) == (1.12278022, 73.133, 7096)
    assert (seed.artifact_bytes, seed.train_seconds) == (15555017, 600.036)
    assert scores.validation.tokenizer == "sp1024"


def test_the_source_code_that_a_log_begins_with_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "train_seed7.log").write_text(f"{SOURCE}{'=' * 100}\n{LOG}")
    scores = read_logs(tmp_path, LogPatterns())
    assert {seed: score.val_bpb for seed, score in scores.seeds.items()} == {7: 1.12278022}


def test_lines_may_begin_with_the_time_and_labels_may_be_added(tmp_path: Path) -> None:
    line = "1776144156.999 my_own_eval val_loss:2.5 val_bpb:1.05 eval_time:2000ms\n"
    (tmp_path / "train3.txt").write_text(line)
    with pytest.raises(LaunchError, match="--patterns"):
        read_logs(tmp_path, LogPatterns())
    extra = tmp_path / "more.toml"
    extra.write_text('scores = ["my_own_eval"]\n')
    (score,) = read_logs(tmp_path, read_patterns(extra)).seeds.items()
    assert (score[0], score[1].val_bpb, score[1].eval_seconds) == (3, 1.05, 2.0)


def test_patterns_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[facts]\nseed = "("\n')
    with pytest.raises(LaunchError, match="cannot be used"):
        read_patterns(path)


@pytest.mark.parametrize("text", ["[]", "{", "{}"])
def test_a_file_that_is_no_submission_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    path.write_text(text)
    with pytest.raises(LaunchError):
        read_submission(path)


def test_real_logs_say_what_their_submissions_say(shared_data_dir: Path) -> None:
    folders = sorted((shared_data_dir / "challenge_logs").iterdir())
    assert len(folders) >= 5
    for folder in folders:
        logs = read_logs(folder, LogPatterns())
        assert len(logs.seeds) == 3
        assert logs.notes == ()
        assert logs.validation.text == "fineweb"
        content = json.loads((folder / "submission.json").read_text())
        seeds = content.get("seed_results", content.get("seeds", {}))
        for seed, said in seeds.items():
            read = logs.seeds[int(seed)]
            assert (read.val_bpb, read.val_loss) == (said["val_bpb"], said["val_loss"])
            assert read.artifact_bytes == said.get("artifact_bytes", said.get("bytes_total"))
        mean = logs.mean("bpb")
        best = min(logs.by_seed("bpb").values())
        assert mean is not None
        # One of the submissions gives its best seed where the others give the mean.
        assert any(abs(content["val_bpb"] - x) < 5e-5 for x in (mean, best))
