"""Workers of which some adapt and some score give the numbers of the strict schedule."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pipeline_lab import assert_same_numbers

from golf.cli import main
from golf.records import DataPaths, EvalPaths, read_json, read_lines


@pytest.mark.parametrize(("adapters", "workers"), [(1, 2), (1, 3), (2, 3), (2, 4)])
def test_scores_are_those_of_as_many_strict_workers_as_adapt(
    fan_out, evaluated, tmp_path: Path, adapters: int, workers: int
):
    result = fan_out(tmp_path / "out", workers, adapters=adapters)
    assert (result["schedule"], result["world_size"]) == ("pipelined", adapters)
    assert result["num_scorers"] == workers - adapters
    assert_same_numbers(tmp_path / "out", evaluated(adapters))


def test_adapters_run_ahead_but_within_bounds(fan_out, tmp_path: Path):
    """A chunk may be trained on before it is scored; how far ahead is limited."""
    bound = ("fanout.run_ahead=2",)
    fan_out(tmp_path / "out", 2, adapters=1, overrides=bound)
    lines, ahead = read_lines(EvalPaths(tmp_path / "out").ledger), []
    for number, line in enumerate(lines):
        before = {done["chunk"] for done in lines[:number] if done["kind"] == "score"}
        if line["kind"] == "train":
            ahead.append(line["chunk"] - len(before))
    assert max(ahead) <= 2


def test_one_chunk_ahead_is_enough(fan_out, evaluated, tmp_path: Path):
    fan_out(tmp_path / "out", 3, adapters=1, overrides=("fanout.run_ahead=1",))
    assert_same_numbers(tmp_path / "out", evaluated(1))


def test_pipelined_chunks_can_be_replayed_bit_for_bit(
    fan_out, job_file: Path, tiny_data: DataPaths, tmp_path: Path, capsys
):
    fan_out(tmp_path / "out", 2, adapters=1)
    weights = job_file.with_name("w.safetensors")
    sources = ["--data", str(tiny_data.root), "--checkpoint", str(weights), "--device", "cpu"]
    assert main(["verify", str(tmp_path / "out"), "--replay", "3", *sources]) == 0
    told = capsys.readouterr().out
    assert "bit for bit" in told
    assert "by provenance: pipelined schedule" in told


def test_progress_tells_each_workers_role(fan_out, tmp_path: Path):
    fan_out(tmp_path / "out", 3, adapters=1)
    progress = read_json(EvalPaths(tmp_path / "out").progress)
    assert [worker["role"] for worker in progress["workers"]] == ["adapter", "scorer", "scorer"]
    assert all(0 < worker["busy"] <= 1 for worker in progress["workers"])
    assert progress["chunk"] == progress["num_chunks"]


def run_command(words: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "launcher.fanout", *words]
    return subprocess.run(program, capture_output=True, text=True, env=env, check=False)


def cut_in_the_middle(paths: EvalPaths) -> None:
    """Leave what a machine that went down after five lines would have left."""
    lines = paths.ledger.read_bytes().splitlines(keepends=True)
    paths.ledger.write_bytes(b"".join(lines[:5]))
    (paths.root / "nll.partial").write_bytes(np.load(paths.nll).tobytes())
    for path in (paths.result, paths.nll, *paths.checkpoints.iterdir()):
        path.unlink()


def test_the_split_is_measured_and_kept_by_a_resume(command, evaluated, tmp_path: Path):
    """Of two workers one adapts, whatever the times; the words say what was measured."""
    words = [*command(tmp_path / "out"), "--workers", "2", "--set", "ttt.schedule=pipelined"]
    done = run_command(words)
    assert done.returncode == 0, done.stderr
    assert "pipelined: 1 of 2 workers adapt, at most 2 chunks ahead (a window takes" in done.stdout
    assert_same_numbers(tmp_path / "out", evaluated(1))
    cut_in_the_middle(EvalPaths(tmp_path / "out"))
    again = run_command([*words, "--resume"])
    assert again.returncode == 0, again.stderr
    assert "(as it was begun)" in again.stdout
    assert_same_numbers(tmp_path / "out", evaluated(1))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--workers", "1"], "needs two workers or more, one to adapt and one to score"),
        (["--workers", "2", "--set", "fanout.adapters=2"], "leave nobody to score"),
        (["--workers", "2", "--protocol", "sliding"], "--protocol sliding does not"),
    ],
)
def test_what_cannot_be_pipelined_is_refused(command, tmp_path: Path, more: list[str], text: str):
    done = run_command([*command(tmp_path / "out"), "--set", "ttt.schedule=pipelined", *more])
    assert done.returncode == 2
    assert text in done.stderr
    assert not (tmp_path / "out").exists()


def test_golf_eval_alone_refuses_it_and_says_who_can(command, tmp_path: Path, capsys):
    assert main(["eval", *command(tmp_path / "out"), "--set", "ttt.schedule=pipelined"]) == 2
    assert "python -m launcher.fanout --workers N" in capsys.readouterr().err
