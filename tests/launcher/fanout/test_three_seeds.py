"""golf-launch with three seeds whose evaluations fan out on this machine, one worker killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from golf.config import Job, job_to_sections
from golf.records import DataPaths, EvalPaths, read_json
from launcher.experiment import ExperimentPaths

LIMIT_S = 240.0
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def job_file(tiny_job: Job, tmp_path: Path) -> Path:
    """Some epochs on each of its 23 chunks, so that there is time to kill somebody."""
    job = replace(
        tiny_job,
        ttt=replace(tiny_job.ttt, chunk_tokens=128, checkpoint_chunks=4, epochs=5),
        fanout=replace(tiny_job.fanout, workers=2),
    )
    path = tmp_path / "fanned.toml"
    path.write_text(tomli_w.dumps(job_to_sections(job)))
    return path


def kill_a_worker_of(paths: EvalPaths, launcher: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not (read_json(paths.progress) or {}).get("chunk"):
        assert launcher.poll() is None, "it ended before its TTT began"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(read_json(paths.progress)["workers"][1]["pid"], signal.SIGKILL)


def two_ranks(paths: ExperimentPaths, seed: int, data: DataPaths, out: Path) -> None:
    """The same evaluation by torchrun, undisturbed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    sources = ["--config", paths.job, "--data", data.root, "--artifact", paths.artifact(seed)]
    words = [*torchrun, "-m", "golf", "eval", *sources, "--protocol", "ttt", "--out", out]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*map(str, words), "--device", "cpu"], check=True, capture_output=True, env=env)


def test_three_seeds_end_well_with_the_very_numbers_though_a_worker_is_killed(
    job_file: Path, tiny_data: DataPaths, tmp_path: Path
) -> None:
    words = [str(job_file), "--seeds", "1,2,3", "--data", str(tiny_data.root), "--json"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", *words, "--runs", str(tmp_path / "runs")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "TMPDIR": str(tmp_path),  # its own line for the cores
        },
        stdout=subprocess.PIPE,
    )
    with launcher:
        assert launcher.stdout is not None
        events = (json.loads(line) for line in launcher.stdout)
        plan = next(event for event in events if event["event"] == "plan")
        paths = ExperimentPaths(Path(plan["path"]))
        disturbed = paths.evaluation(2, "ttt")
        kill_a_worker_of(disturbed, launcher)
        seen = [event for event in events if event["event"] == "progress"]
    assert launcher.returncode == 0
    report = read_json(paths.report_json)
    assert [seed["ledger"] for seed in report["seeds"]] == ["verified"] * 3
    recoveries = {seed: read_json(paths.evaluation(seed, "ttt").result)["recoveries"]
                  for seed in (1, 2, 3)}  # fmt: skip
    assert [len(recoveries[seed]) for seed in (1, 2, 3)] == [0, 1, 0]
    assert any(event.get("recoveries") == 1 for event in seen if event["seed"] == 2)
    two_ranks(paths, 2, tiny_data, tmp_path / "undisturbed")
    for name in ("plan.json", "ledger.jsonl"):
        assert (disturbed.root / name).read_bytes() == (
            tmp_path / "undisturbed" / name
        ).read_bytes()
