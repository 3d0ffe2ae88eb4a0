"""The `golf` command: what it says and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tomli_w
import torch

from golf.bundle import bundle_bytes
from golf.cli import main
from golf.config import Job, job_to_sections, load_job
from golf.records import DataPaths, read_json, read_lines
from golf.weights import load_weights, save_weights


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Golf = Callable[..., Answer]


@pytest.fixture
def golf(capsys: pytest.CaptureFixture[str]) -> Golf:
    """Runs a command line in this process."""

    def golf(*words: object) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's way to end
            code = int(stop.code or 0)
        return Answer(code, *capsys.readouterr())

    return golf


@pytest.fixture(scope="session")
def job_file(tiny_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("job") / "tiny.toml"
    path.write_text(tomli_w.dumps(job_to_sections(tiny_job)))
    return path


@pytest.fixture(scope="session")
def trained(job_file: Path, tiny_data: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder made by the command."""
    out = tmp_path_factory.mktemp("trained") / "train"
    words = ["train", "--config", job_file, "--data", tiny_data.root, "--out", out, "--seed", 7]
    assert main([str(word) for word in [*words, "--device", "cpu"]]) == 0
    return out


def fails(answer: Answer, code: int, *texts: str) -> None:
    """One line for people on standard error, and nothing that a machine would read."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.startswith("golf")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
    for text in texts:
        assert text in answer.err


# ---- usage ----


def test_help_names_every_command_and_each_has_help_of_its_own(golf: Golf) -> None:
    answer = golf("--help")
    assert answer.code == 0
    commands = ("prepare", "download", "train", "quantize", "unpack", "eval", "verify", "bench")
    for command in commands:
        assert f"\n    {command} " in answer.out
        assert golf(command, "--help").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "--config", "gone.toml", "--data", "d", "--out", "o", "--seed", "1"],
        ["quantize", "--config", "gone.toml", "--checkpoint", "c", "--out", "o"],
        ["eval", "--config", "gone.toml", "--data", "d", "--protocol", "ttt", "--out", "o"],
        ["bench", "--config", "gone.toml"],
    ],
)
def test_help_and_wrong_jobs_never_wait_for_torch(words: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from golf.bundle import bundle_bytes
from golf.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print([name for name in ("torch", "numpy", "rich", "sentencepiece") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: --config, --data, --out, --seed"),
        (["train", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["eval", "--protocol", "pre-eval"], "invalid choice: 'pre-eval'"),
        (["verify", ".", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_where_help_is(
    words: list[str], text: str, golf: Golf
) -> None:
    answer = golf(*words)
    fails(answer, 2, text)
    assert "--help)" in answer.err


def test_options_cannot_be_abbreviated_into_another_meaning(
    golf: Golf, job_file: Path, tmp_path: Path
) -> None:
    """`--res` would silently be `--resume`, and change its meaning when an option is added."""
    words = ["train", "--config", job_file, "--data", tmp_path, "--out", tmp_path, "--seed", 1]
    fails(golf(*words, "--res"), 2, "unrecognized arguments: --res")


# ---- jobs, flags and data ----


def train_words(job_file: Path, data: object, out: object, *words: object) -> list[object]:
    fixed = ["--seed", 1, "--device", "cpu"]
    return ["train", "--config", job_file, "--data", data, "--out", out, *fixed, *words]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--set", "ttt.learning_rate=1"], "unknown key ttt.learning_rate"),
        (["--set", "optim.matrix_lrr=1"], "did you mean matrix_lr?"),
        (["--set", "matrix_lr=1"], "must look like section.key=value"),
        (["--set", "model.num_heads=3"], "must be a multiple of model.num_heads=3"),
        (["--attention", "flash"], "attention 'flash' is unknown; choose one of"),
        (["--attention", "flash-attention-3"], "does not run here"),
        (["--set", "averaging.export=swa", "--set", "averaging.swa_every=9"], "needs an SWA"),
    ],
)
def test_wrong_settings_exit_with_2_and_write_nothing(
    words: list[str], text: str, golf: Golf, job_file: Path, tiny_data: DataPaths, tmp_path: Path
) -> None:
    answer = golf(*train_words(job_file, tiny_data.root, tmp_path / "out", *words))
    fails(answer, 2, text)
    assert not (tmp_path / "out").exists()


def test_a_missing_job_file_exits_with_2(golf: Golf, tiny_data: DataPaths, tmp_path: Path) -> None:
    answer = golf(*train_words(tmp_path / "no.toml", tiny_data.root, tmp_path / "out"))
    fails(answer, 2, "no.toml does not exist")


def test_missing_data_exits_with_1_and_says_how_to_make_it(
    golf: Golf, job_file: Path, tmp_path: Path
) -> None:
    answer = golf(*train_words(job_file, tmp_path / "no-data", tmp_path / "out"))
    fails(answer, 1, "no-data", "golf prepare")


def test_missing_or_foreign_weights_exit_with_1(
    golf: Golf, job_file: Path, tiny_data: DataPaths, tmp_path: Path
) -> None:
    words = train_words(job_file, tiny_data.root, tmp_path / "out", "--init")
    fails(golf(*words, tmp_path / "no.safetensors"), 1, "no.safetensors: no such file")
    (tmp_path / "text").write_text("these are no weights")
    fails(golf(*words, tmp_path / "text"), 1, f"{tmp_path}/text")


# ---- train ----


def test_train_tells_its_result_and_writes_it(trained: Path) -> None:
    result = read_json(trained / "result.json")
    assert result is not None
    assert (result["seed"], result["steps"]) == (7, 6)
    assert len(read_lines(trained / "metrics.jsonl")) == 6


def test_json_is_all_that_stands_on_standard_output(
    golf: Golf, trained: Path, job_file: Path, tiny_data: DataPaths
) -> None:
    words = ["train", "--config", job_file, "--data", tiny_data.root, "--out", trained]
    answer = golf(*words, "--seed", 7, "--device", "cpu", "--resume", "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == read_json(trained / "result.json")
    assert answer.err == f"already trained: {trained / 'result.json'}\n"
    plain = golf(*words, "--seed", 7, "--device", "cpu", "--resume")
    assert "trained 6 steps in" in plain.out
    assert "val_bpb" in plain.out


def test_an_existing_run_exits_with_1_and_names_resume(
    golf: Golf, trained: Path, job_file: Path, tiny_data: DataPaths
) -> None:
    words = train_words(job_file, tiny_data.root, trained)
    fails(golf(*words), 1, "already holds a run; add --resume")
    fails(golf(*words, "--resume"), 2, "another seed or other settings")


# ---- quantize, unpack ----


@pytest.fixture(scope="session")
def artifact(job_file: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artifact") / "model.golf"
    words = ["quantize", "--config", job_file, "--checkpoint", trained / "model.safetensors"]
    assert main([str(word) for word in [*words, "--out", out]]) == 0
    return out


def test_quantize_reports_every_byte(
    golf: Golf, job_file: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.golf"
    answer = golf(
        "quantize", "--config", job_file, "--checkpoint", trained / "model.safetensors",
        "--out", out, "--json",
    )  # fmt: skip
    sizes = json.loads(answer.out)
    assert answer.code == 0
    assert sizes == read_json(tmp_path / "model.golf.json")
    assert sizes["model_bytes"] == out.stat().st_size
    assert sizes["total_bytes"] == sizes["model_bytes"] + sizes["code_bytes"]
    assert set(sizes["tensor_bytes"]) == set(load_weights(trained / "model.safetensors"))


def test_the_code_that_counts_is_the_one_file_of_this_job_or_a_file_that_is_named(
    golf: Golf, job_file: Path, trained: Path, tmp_path: Path
) -> None:
    words = (
        "quantize", "--config", job_file, "--checkpoint", trained / "model.safetensors",
        "--out", tmp_path / "model.golf", "--json",
    )  # fmt: skip
    assert json.loads(golf(*words).out)["code_bytes"] == bundle_bytes(load_job(job_file))
    mine = tmp_path / "train_gpt.py"
    mine.write_text("print()\n")
    assert json.loads(golf(*words, "--code", mine).out)["code_bytes"] == 8
    answer = golf(*words, "--code", tmp_path / "none.py")
    assert answer.code == 2
    assert "--code" in answer.err


def test_an_artifact_over_its_budget_is_written_and_exits_with_3(
    golf: Golf, job_file: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.golf"
    answer = golf(
        "quantize", "--config", job_file, "--checkpoint", trained / "model.safetensors",
        "--out", out, "--json", "--set", "budget.artifact_bytes=1000",
    )  # fmt: skip
    sizes = json.loads(answer.out)
    over = sizes["total_bytes"] - 1000
    assert answer.code == 3
    assert f"{over:,}" in answer.err
    assert "tok_emb.weight" in answer.err
    assert out.exists()


def test_weights_of_another_model_are_not_quantized(
    golf: Golf, job_file: Path, trained: Path, tmp_path: Path
) -> None:
    answer = golf(
        "quantize", "--config", job_file, "--checkpoint", trained / "model.safetensors",
        "--out", tmp_path / "model.golf", "--set", "model.num_layers=3",
    )  # fmt: skip
    fails(answer, 1, "the weights do not fit the model", "blocks.2.", "model.num_layers")
    assert list(tmp_path.iterdir()) == []


def test_an_unpacked_artifact_has_the_checkpoint_s_names_and_shapes_and_packs_to_the_same_numbers(
    golf: Golf, job_file: Path, trained: Path, artifact: Path, tmp_path: Path
) -> None:
    answer = golf("unpack", artifact, "--out", tmp_path / "back.safetensors", "--json")
    before = load_weights(trained / "model.safetensors")
    back = load_weights(tmp_path / "back.safetensors")
    assert json.loads(answer.out)["parameters"] == sum(t.numel() for t in before.values())
    assert {n: (t.shape, t.dtype) for n, t in back.items()} == {
        n: (t.shape, torch.float32) for n, t in before.items()
    }
    assert all(torch.allclose(back[n], before[n], rtol=2e-3, atol=1e-3) for n in back)
    assert golf(
        "quantize", "--config", job_file, "--checkpoint", tmp_path / "back.safetensors",
        "--out", tmp_path / "again.golf",
    ).code == 0  # fmt: skip
    again = load_weights(tmp_path / "again.golf")
    assert all(torch.equal(again[n], back[n]) for n in back)


def test_a_damaged_artifact_exits_with_1(golf: Golf, artifact: Path, tmp_path: Path) -> None:
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.golf").write_bytes(content)
    answer = golf("unpack", tmp_path / "bad.golf", "--out", tmp_path / "out.safetensors")
    fails(answer, 1, "bad.golf")
    assert not (tmp_path / "out.safetensors").exists()


# ---- eval, verify ----


def eval_words(job_file: Path, data: DataPaths, out: Path, *words: object) -> list[object]:
    return [
        "eval", "--config", job_file, "--data", data.root, "--out", out, "--device", "cpu", *words,
    ]  # fmt: skip


def test_weights_come_from_just_one_place(
    golf: Golf, job_file: Path, tiny_data: DataPaths, artifact: Path, trained: Path, tmp_path: Path
) -> None:
    words = eval_words(job_file, tiny_data, tmp_path / "out", "--protocol", "sequential")
    fails(golf(*words), 2, "one of --checkpoint and --artifact")
    both = ["--artifact", artifact, "--checkpoint", trained / "model.safetensors"]
    fails(golf(*words, *both), 2, "one of --checkpoint and --artifact")


def test_the_exported_weights_score_again_what_training_said(
    golf: Golf, job_file: Path, tiny_data: DataPaths, trained: Path, tmp_path: Path
) -> None:
    words = eval_words(job_file, tiny_data, tmp_path / "out", "--protocol", "sequential")
    answer = golf(*words, "--checkpoint", trained / "model.safetensors", "--json")
    assert answer.code == 0, answer.err
    result: dict[str, Any] = json.loads(answer.out)
    trained_result = read_json(trained / "result.json")
    assert trained_result is not None
    assert result["tokens"] == trained_result["val_tokens"]
    assert result["val_loss"] == pytest.approx(trained_result["val_loss"], rel=1e-6)
    assert result["val_bpb"] == pytest.approx(trained_result["val_bpb"], rel=1e-6)


def test_an_adapted_evaluation_verifies_and_a_changed_one_exits_with_3(
    golf: Golf, job_file: Path, tiny_data: DataPaths, artifact: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    words = eval_words(job_file, tiny_data, out, "--protocol", "ttt", "--artifact", artifact)
    assert golf(*words, "--set", "ttt.chunk_tokens=1024").code == 0
    good = golf("verify", out)
    assert good.code == 0, good
    assert "FAIL" not in good.out
    ledger = out / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-2] + lines[-1:]))
    bad = golf("verify", out, "--json")
    assert bad.code == 3
    assert json.loads(bad.out)["valid"] is False


def test_a_folder_without_a_ledger_cannot_be_verified(golf: Golf, tmp_path: Path) -> None:
    fails(golf("verify", tmp_path), 2, "ledger")


# ---- prepare, bench ----


def test_prepare_makes_a_folder_that_trains(golf: Golf, job_file: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs.txt"
    docs.write_text(
        "\n\n".join(f"Document {n} says hello to document {n + 1}." for n in range(400))
    )
    answer = golf(
        "prepare", "--docs", docs, "--out", tmp_path / "data", "--vocab-size", 300,
        "--val-docs", 2, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    manifest = json.loads(answer.out)
    assert manifest == read_json(tmp_path / "data/manifest.json")
    again = golf(*train_words(job_file, tmp_path / "data", tmp_path / "out", "--json"))
    assert json.loads(again.out)["steps"] == 6


def test_too_few_documents_exit_with_1(golf: Golf, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a single document")
    answer = golf(
        "prepare", "--docs", tmp_path / "one.txt", "--out", tmp_path / "data", "--vocab-size", 300
    )
    assert answer.code == 1
    assert "none is left to train on" in answer.err


def test_bench_prints_a_line_a_part(golf: Golf, job_file: Path) -> None:
    answer = golf("bench", "--config", job_file, "--device", "cpu", "--repeats", 1)
    assert answer.code == 0
    assert "cpu float32, attention sdpa, eager" in answer.out
    assert len(answer.out.splitlines()) == 7


def test_saved_weights_are_the_file_that_was_asked_for(golf: Golf, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(3)})
    assert golf("unpack", tmp_path / "w.safetensors", "--out", tmp_path / "v.safetensors").code == 0
    assert torch.equal(load_weights(tmp_path / "v.safetensors")["a"], torch.ones(3))
