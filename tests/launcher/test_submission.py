"""The submission folder, and its one file that trains and evaluates by itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from lab import Lab, train_and_eval
from test_report import SEEDS, finish

from golf.bundle import bundle
from golf.config import Job, job_from_sections
from golf.records import read_json, write_json
from launcher.cli import main
from launcher.experiment import Experiment, ExperimentPaths, Registration
from launcher.plan import make_plan
from launcher.reporting.challenge_logs import LogPatterns, read_logs, read_submission

ROOT = Path(__file__).resolve().parents[2]
JOB: dict[str, Any] = {
    "job": {"name": "tiny"},
    "model": {
        "vocab_size": 320,
        "num_layers": 2,
        "model_dim": 32,
        "num_heads": 4,
        "num_kv_heads": 2,
        "mlp_mult": 2.0,
        "bigram_vocab_size": 64,
        "bigram_dim": 8,
        "xsa_last_n": 1,
        "rope_dims": 4,
        "ve_dim": 8,
        "ve_layers": [1],
    },
    "data": {"train_batch_tokens": 512, "train_seq_len": 32, "source": "embedded", "val_docs": 1},
    "schedule": {
        "iterations": 4,
        "warmdown_iters": 2,
        "warmup_steps": 0,
        "max_wallclock_seconds": 0.0,
    },
    "averaging": {"ema_decay": 0.5},
    "quantize": {"zstd_level": 1},
    "evaluate": {"eval_seq_len": 32, "stride": 16, "batch_windows": 16},
    "ttt": {"chunk_tokens": 512, "batch_seqs": 4, "epochs": 1},
    "resources": {"gpus_per_node": 0, "cpus_per_task": 1, "mem_gb": 1},
}


def tiny() -> Job:
    return job_from_sections(JOB)


@pytest.fixture
def experiment(lab: Lab) -> Experiment:
    found = lab.register([s for seed in SEEDS for s in train_and_eval(seed, "pass")])
    lab.experiments.clear()
    return found


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_loss"] for line in lines]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from golf.data.documents import read_documents
    from golf.data.prepare import embedded_corpus, prepare

    folder = tmp_path_factory.mktemp("data")
    texts = [text for _, text in zip(range(8), read_documents(embedded_corpus()), strict=False)]
    docs = folder / "docs.jsonl"
    docs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([docs], folder / "data", vocab_size=320, val_docs=1, workers=1)
    return folder / "data"


def test_the_one_file_gives_the_packages_losses_and_counts_its_own_bytes(
    data: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    script, job = alone / "train_gpt.py", tmp_path / "job.toml"
    job.write_text(tomli_w.dumps(JOB))
    script.write_text(bundle(ROOT / "golf", tiny()))
    # A package of this name that cannot be used shows that nothing else is imported.
    (alone / "golf.py").write_text("raise ImportError('not the bundled code')\n")
    told = run("train_gpt.py", "--data", str(data), "--out", "out", "--seed", "7", cwd=alone)

    package = ("-m", "golf", "train", "--config", str(job), "--data", str(data))
    run(*package, "--out", str(tmp_path / "package"), "--seed", "7", cwd=ROOT)
    assert losses(alone / "out") == losses(tmp_path / "package")
    sizes = json.loads((alone / "out/model.golf.json").read_text())
    assert sizes["code_bytes"] == script.stat().st_size
    result = json.loads((alone / "out/ttt/result.json").read_text())
    assert f"val_bpb:{result['val_bpb']:.8f}" in told
    assert f"{sizes['model_bytes'] + script.stat().st_size} bytes" in told


def test_the_one_file_trains_where_no_package_of_its_name_can_be_imported(
    data: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(tomli_w.dumps(JOB))
    (tmp_path / "train_gpt.py").write_text(bundle(ROOT / "golf", tiny()))
    alone = """
import importlib.util, pathlib, runpy, sys
sys.path = [p for p in sys.path if p and not (pathlib.Path(p) / "golf").is_dir()]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
assert importlib.util.find_spec("golf") is None, "the test means to take the package away"
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    words = ("train", "--config", str(job), "--data", str(data), "--seed", "7", "--out", "out")
    run("-I", "-c", alone, "train_gpt.py", *words, cwd=tmp_path)
    assert len(losses(tmp_path / "out")) == JOB["schedule"]["iterations"]


def test_the_one_file_on_two_ranks_gives_the_packages_losses(data: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(tomli_w.dumps(JOB))
    (tmp_path / "train_gpt.py").write_text(bundle(ROOT / "golf", tiny()))
    (tmp_path / "golf.py").write_text("raise ImportError('not the bundled code')\n")
    ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    words = ("train", "--config", str(job), "--data", str(data), "--seed", "7", "--device", "cpu")
    run(*ranks, "train_gpt.py", *words, "--out", str(tmp_path / "alone"), cwd=tmp_path)
    run(*ranks, "-m", "golf", *words, "--out", str(tmp_path / "package"), cwd=ROOT)
    result = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert result["world_size"] == 2
    assert losses(tmp_path / "alone") == losses(tmp_path / "package")


def test_the_gate_counts_the_very_bytes_that_the_submission_ships(
    data: Path, tmp_path: Path
) -> None:
    from golf.cli import main as golf
    from golf.model.attention import choose_backend
    from golf.model.gpt import GPT
    from golf.weights import save_weights

    plan = make_plan(tiny(), SEEDS, ExperimentPaths(tmp_path / "tiny-1"), data)
    wanted = Registration(seeds=SEEDS, stages=plan.stages, asked_job="tiny")
    experiment = Experiment.register(plan.paths, plan.job, wanted)
    model = GPT(plan.job.model, choose_backend(torch.device("cpu"), torch.float32))
    for seed in SEEDS:
        finish(experiment, seed)
        save_weights(plan.paths.train(seed).model, dict(model.named_parameters()))
        (quantize,) = [
            command
            for command in experiment.stage(f"{seed}/train").commands
            if command.name == "quantize"
        ]
        assert golf(quantize.argv[1:]) == 0
    (counted,) = {
        json.loads(plan.paths.artifact_sizes(seed).read_text())["code_bytes"] for seed in SEEDS
    }
    out = tmp_path / "records"
    assert main(["submission", str(plan.paths.root), "--out", str(out)]) == 0
    content = json.loads((out / "submission.json").read_text())
    shipped = (out / "train_gpt.py").read_bytes()
    assert counted == content["bytes_code"] == len(shipped)
    # What the plan foretold, and what `golf quantize` by hand would count, is the same.
    assert shipped.decode() == bundle(ROOT / "golf", tiny())


def test_a_file_that_was_changed_after_it_was_counted_is_not_submitted(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    assert main(["submission", str(experiment.paths.root), "--out", str(tmp_path / "x")]) == 2
    assert "its seeds counted 300" in capsys.readouterr().err
    experiment.paths.script.unlink()
    assert main(["submission", str(experiment.paths.root), "--out", str(tmp_path / "x")]) == 2
    assert "launch it again" in capsys.readouterr().err


def test_the_folder_says_what_the_experiment_measured(
    experiment: Experiment, tmp_path: Path
) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    experiment.paths.script.write_bytes(300 * b"#")  # as many as their gates have counted
    out = tmp_path / "records" / "mine"
    words = ("submission", str(experiment.paths.root), "--out", str(out), "--author", "A")
    assert main(words) == 0
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "requirements.txt",
        "submission.json",
        "train_gpt.py",
        *(f"train_seed{seed}.log" for seed in SEEDS),
    }
    content = json.loads((out / "submission.json").read_text())
    code = (out / "train_gpt.py").stat().st_size
    assert content["bytes_code"] == code == 300
    assert content["bytes_total"] == 600 + code
    assert content["val_bpb"] == pytest.approx(1.12)
    logs, submission = read_logs(out, LogPatterns()), read_submission(out / "submission.json")
    for seed in SEEDS:
        logged, stated = logs.seeds[seed], submission.seeds[seed]
        assert logged.val_bpb == stated.val_bpb
        assert logged.val_loss == pytest.approx(stated.val_loss, abs=1e-8)
        assert logged.artifact_bytes == stated.artifact_bytes == 600 + code
        assert (logged.steps, logged.eval_seconds) == (stated.steps, stated.eval_seconds)


@pytest.mark.parametrize("unit", ["bpb", "nats"])
def test_a_submission_of_any_data_compares_again_with_experiments_on_the_same(
    unit: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [s for seed in SEEDS for s in train_and_eval(seed, "pass")]
    old, new, other = (lab.register(stages, name=f"test-{name}") for name in ("a", "b", "c"))
    lab.experiments.clear()
    for experiment, shift, num_bytes in ((old, 0.0, 700), (new, -0.5, 700), (other, -0.5, 900)):
        for seed in SEEDS:
            finish(experiment, seed, shift=shift)
            evaluation = experiment.paths.evaluation(seed, "ttt")
            write_json(evaluation.plan, {"validation": {"tokenizer_sha256": 64 * "a"}})
            result = read_json(evaluation.result)
            assert result is not None
            write_json(evaluation.result, result | {"bytes": num_bytes})
    old.paths.script.write_bytes(300 * b"#")
    out = tmp_path / "records" / "old"
    assert main(["submission", str(old.paths.root), "--out", str(out)]) == 0
    capsys.readouterr()

    words = ("--unit", unit, "--margin", "0nats", "--json")
    assert main(["compare", str(new.paths.root), str(out), *words]) == 0
    (compared,) = json.loads(capsys.readouterr().out)["comparisons"]
    per_bpb = math.log(2) * 700 / 300  # nats/token, by the run's own bytes and tokens
    assert compared["difference_bpb" if unit == "bpb" else "difference_nats"] == pytest.approx(0.5)
    assert compared["difference_nats"] == pytest.approx(compared["difference_bpb"] * per_bpb)
    assert main(["compare", str(other.paths.root), str(out), *words]) == 2
    assert "different texts do not compare" in capsys.readouterr().err


def test_the_profile_signs_and_the_command_line_overrides_it(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    experiment.paths.script.write_bytes(300 * b"#")
    profile = tmp_path / "me.toml"
    profile.write_text('[author]\nname = "Ada"\ngithub_id = "ada"\n')
    words = ["submission", str(experiment.paths.root)]

    def signed(out: str, *more: str) -> tuple[str, str]:
        assert main([*words, "--out", str(tmp_path / out), *more]) == 0
        content = json.loads((tmp_path / out / "submission.json").read_text())
        return content["author"], content["github_id"]

    assert signed("a", "--profile", str(profile)) == ("Ada", "ada")
    assert signed("b", "--profile", str(profile), "--author", "Bo") == ("Bo", "ada")
    assert capsys.readouterr().err == ""
    assert signed("c", "--github-id", "x") == ("", "x")
    told = capsys.readouterr().err
    assert "set name under [author] in" in told
    assert "github_id" not in told


def test_an_unfinished_seed_or_a_full_folder_is_refused(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in SEEDS[:2]:
        finish(experiment, seed)
    words = ("submission", str(experiment.paths.root), "--out")
    assert main([*words, str(tmp_path / "new")]) == 2
    assert "golf-launch resume" in capsys.readouterr().err
    finish(experiment, SEEDS[2])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert main([*words, str(tmp_path / "full")]) == 2
    assert "not empty" in capsys.readouterr().err
