"""Training through `golf.train.train`: golden run, resuming, the clock, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tomli_w
import torch
from torch import Tensor

import golf.train as training
from golf.config import ConfigError, Job, job_from_sections, job_to_sections
from golf.data.loader import StepLoader
from golf.data.shards import ShardError, write_shard
from golf.distributed import Ranks
from golf.metrics import DivergedError
from golf.model.gpt import GPT
from golf.model.linear import Linear
from golf.records import DataPaths, RunError, TrainPaths, read_json, read_lines
from golf.train import StoppedError, TrainOptions, train
from golf.weights import load_weights

ALONE = Ranks(0, 1, torch.device("cpu"))

Trainer = Callable[..., dict[str, Any]]


def changed(job: Job, *overrides: str) -> Job:
    return job_from_sections(job_to_sections(job), overrides)


@pytest.fixture(scope="module")
def run(tiny_job: Job, tiny_data: DataPaths) -> Trainer:
    """Trains the tiny job, or a variation of it, on the tiny data."""

    def run(out: Path, *overrides: str, **settings: Any) -> dict[str, Any]:
        options = TrainOptions(
            job=changed(tiny_job, *overrides),
            data=tiny_data,
            out=out,
            seed=1,
            dtype=torch.float32,
        )
        tell = settings.pop("tell", lambda line: None)
        return train(replace(options, **settings), ALONE, tell)

    return run


@pytest.fixture(scope="module")
def whole(run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny job, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return out


def lines(out: Path) -> list[dict[str, Any]]:
    """The metrics without the clock."""
    return [
        {k: v for k, v in line.items() if k != "elapsed_ms"}
        for line in read_lines(TrainPaths(out).metrics)
    ]


def losses(out: Path) -> list[float]:
    return [line["train_loss"] for line in lines(out)]


def left_behind(out: Path) -> dict[str, object]:
    """All of a finished run that must not depend on how often it was interrupted."""
    paths = TrainPaths(out)
    result = read_json(paths.result)
    assert result is not None
    result.pop("train_seconds")
    weights = (paths.model, paths.average("ema"), paths.average("swa"))
    return {
        "result": result,
        "metrics": lines(out),
        **{str(path.relative_to(out)): path.read_bytes() for path in weights},
    }


# ---- the public implementation's numbers ----


@pytest.fixture(scope="module")
def golden(
    golden_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """The golden run's numbers, and our run of it.

    The validation shard is the one row on which the public implementation scored its EMA. Its
    vocabulary of 256 is too small for byte fallback, so a tokenizer of characters stands in.
    """
    folder = tmp_path_factory.mktemp("golden_train")
    with np.load(golden_dir / "train.npz") as file:
        data = dict(file)
    hp, model = json.loads(str(data["hp"])), json.loads(str(data["config"]))
    for i in range(2):
        write_shard(folder / f"fineweb_train_{i:06d}.bin", data[f"shard{i}"])
    write_shard(folder / "fineweb_val_000000.bin", data["shard0"][:129])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 3),
        model_prefix=str(folder / "tokenizer"),
        model_type="char",
        vocab_size=32,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    optim = {k: v for k, v in hp.items() if k.startswith(("muon", "adam", "grad_clip"))}
    optim |= {k: v for k, v in hp.items() if k.endswith("_lr")}
    job = job_from_sections(
        {
            "model": model,
            "data": {k: hp[k] for k in ("train_batch_tokens", "train_seq_len")},
            "optim": optim,
            "schedule": {
                **{k: hp[k] for k in ("iterations", "warmdown_iters", "late_qat_threshold")},
                "warmup_steps": 0,
                "max_wallclock_seconds": 0,
            },
            "averaging": {k: hp[k] for k in ("ema_decay", "swa_every")},
            "evaluate": {"eval_seq_len": 128},
        }
    )
    options = TrainOptions(
        job=job,
        data=DataPaths(folder),
        out=folder / "run",
        seed=0,
        dtype=torch.float32,
        init={k[2:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")},
    )
    train(options, ALONE)
    return data, options.out


def test_every_step_s_loss_is_the_public_implementation_s(
    golden: tuple[dict[str, Any], Path],
) -> None:
    """Newton-Schulz runs in bfloat16, so updates agree to 1e-3 of their size and losses to 2e-4.

    Once weights are rounded for QAT a difference of one part in a million may flip a weight to the
    next of 63 levels: 3e-3 then.
    """
    data, out = golden
    far = np.abs(np.array(losses(out)) - data["losses"])
    qat = int(data["qat_step"])
    assert len(far) == 30
    assert far[0] < 1e-5
    assert far[:qat].max() < 1e-3
    assert far[qat:].max() < 6e-3


def test_rates_the_start_of_qat_and_the_snapshots_are_exact(
    golden: tuple[dict[str, Any], Path],
) -> None:
    data, out = golden
    result = read_json(TrainPaths(out).result)
    assert result is not None
    assert [line["lr_scale"] for line in lines(out)] == data["lr_scale"].tolist()
    assert (result["qat_step"], result["swa_snapshots"]) == (data["qat_step"], data["nswa"])
    assert [line["tokens"] for line in lines(out)] == [1024 * step for step in range(1, 31)]


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_averages_are_the_public_implementation_s(
    name: str, golden: tuple[dict[str, Any], Path]
) -> None:
    data, out = golden
    got = load_weights(TrainPaths(out).average(name))
    wanted = {k[4:]: torch.from_numpy(v) for k, v in data.items() if k.startswith(f"{name}/")}
    start = {k[2:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")}
    assert set(got) == set(wanted)

    def flat(tensors: dict[str, Tensor]) -> Tensor:
        return torch.cat([tensors[n].flatten() for n in sorted(wanted)])

    travelled = (flat(wanted) - flat(start)).norm()
    assert (flat(got) - flat(wanted)).norm() < 1.5e-2 * travelled


def test_the_exported_ema_scores_as_the_public_implementation_s(
    golden: tuple[dict[str, Any], Path],
) -> None:
    data, out = golden
    result = read_json(TrainPaths(out).result)
    assert result is not None
    assert result["val_tokens"] == 128
    assert result["val_loss"] == pytest.approx(float(data["ema_loss"]), abs=1e-3)


# ---- what a run leaves behind ----


def test_a_run_leaves_metrics_averages_and_a_result(run: Trainer, tmp_path: Path) -> None:
    result = run(tmp_path, "schedule.val_every=2")
    written = read_lines(tmp_path / "metrics.jsonl")
    keys = {"step", "train_loss", "lr_scale", "tokens", "elapsed_ms"}
    assert [line["step"] for line in written] == [1, 2, 3, 4, 5, 6]
    assert [set(line) for line in written] == [
        keys | {"val_loss", "val_bpb"} if step in (2, 4) else keys for step in range(1, 7)
    ]
    assert [line["tokens"] for line in written] == [512 * step for step in range(1, 7)]
    assert written[-1]["train_loss"] < written[0]["train_loss"]
    assert read_json(tmp_path / "result.json") == result
    wanted = {
        "seed": 1, "steps": 6, "stopped_by": "iterations", "tokens": 3072, "export": "ema",
        "qat_step": 4, "swa_snapshots": 2, "attention": "sdpa", "dtype": "float32",
        "world_size": 1, "train_loss": written[-1]["train_loss"],
    }  # fmt: skip
    assert {key: result[key] for key in wanted} == wanted
    assert (tmp_path / "model.safetensors").read_bytes() == (
        tmp_path / "averages/ema.safetensors"
    ).read_bytes()


def test_validating_on_the_way_changes_no_loss(run: Trainer, whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "b", "schedule.val_every=1")
    assert losses(whole) == losses(tmp_path / "b")


def test_no_validation_rounds_the_weights(
    run: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QAT is on in steps 5 and 6; what is scored, on the way and at the end, are plain weights."""
    rounded: list[bool] = []
    score = training.score_sequential

    def score_sequential(gpt: GPT, *arguments: Any) -> object:
        rounded.append(any(m.fake_quant for m in gpt.modules() if isinstance(m, Linear)))
        return score(gpt, *arguments)

    monkeypatch.setattr(training, "score_sequential", score_sequential)
    assert run(tmp_path, "schedule.val_every=1")["qat_step"] == 4
    assert rounded == [False] * 6


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    run: Trainer, whole: Path, tmp_path: Path
) -> None:
    for out, seed in (("b", 1), ("c", 2)):
        run(tmp_path / out, seed=seed)
    assert left_behind(whole) == left_behind(tmp_path / "b")
    assert losses(whole) != losses(tmp_path / "c")


@pytest.mark.parametrize("export", ["swa", "ema+swa"])
def test_what_the_job_exports_is_the_model(export: str, run: Trainer, tmp_path: Path) -> None:
    run(tmp_path, f"averaging.export={export}")
    model, ema, swa = (
        load_weights(tmp_path / name)
        for name in ("model.safetensors", "averages/ema.safetensors", "averages/swa.safetensors")
    )
    for name, tensor in model.items():
        wanted = swa[name] if export == "swa" else (ema[name] + swa[name]) / 2
        assert torch.equal(tensor, wanted)
    assert not torch.equal(model["tok_emb.weight"], ema["tok_emb.weight"])


def test_without_a_snapshot_there_is_no_swa_file(run: Trainer, tmp_path: Path) -> None:
    run(tmp_path, "averaging.swa_start_scale=0")
    assert (tmp_path / "averages/ema.safetensors").exists()
    assert not (tmp_path / "averages/swa.safetensors").exists()


def test_bfloat16_on_the_cpu_trains_close_to_float32(
    run: Trainer, whole: Path, tmp_path: Path
) -> None:
    run(tmp_path / "bfloat16", dtype=torch.bfloat16)
    assert losses(tmp_path / "bfloat16") != losses(whole)
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(whole), rel=1e-2)


def test_given_weights_are_the_start(run: Trainer, whole: Path, tmp_path: Path) -> None:
    weights = load_weights(whole / "model.safetensors")
    run(tmp_path / "second", init=weights, seed=2)
    assert losses(tmp_path / "second")[0] < losses(whole)[0] - 0.1
    with pytest.raises(RunError, match=r"compare model\.vocab_size with the job"):
        run(tmp_path / "third", "model.vocab_size=330", init=weights)


# ---- warm-up ----


@pytest.mark.parametrize("steps", [1, 3])
def test_warm_up_is_undone(steps: int, run: Trainer, whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "warm", f"schedule.warmup_steps={steps}")
    assert lines(whole) == lines(tmp_path / "warm")
    assert (whole / "model.safetensors").read_bytes() == (
        tmp_path / "warm/model.safetensors"
    ).read_bytes()


# ---- interruptions ----


class DiskError(OSError):
    """What reading the data fails with in these tests."""


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Let reading the batch of a step fail, as a file system would; None heals it."""
    original = StepLoader.micro_batches

    def fail_at(failing: int | None) -> None:
        def micro_batches(loader: StepLoader, step: int) -> object:
            if step == failing:
                raise DiskError("input/output error")
            return original(loader, step)

        monkeypatch.setattr(StepLoader, "micro_batches", micro_batches)

    return fail_at


@pytest.mark.parametrize("crash", [1, 3, 4])
def test_a_run_that_crashed_resumes_bit_for_bit(
    crash: int, run: Trainer, whole: Path, fail_at: Callable[[int | None], None], tmp_path: Path
) -> None:
    """With a checkpoint every second step: before the first, between two, and just after one."""
    fail_at(crash)
    with pytest.raises(DiskError):
        run(tmp_path / "crashed")
    assert not (tmp_path / "crashed/result.json").exists()
    fail_at(None)
    run(tmp_path / "crashed", resume=True)
    assert left_behind(tmp_path / "crashed") == left_behind(whole)


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [
        (["schedule.val_every=2", "averaging.export=ema+swa"], torch.float32),
        (["schedule.checkpoint_every=3", "averaging.ema_decay=0.9"], torch.bfloat16),
    ],
)
def test_a_run_that_crashed_in_qat_resumes_bit_for_bit(
    overrides: list[str],
    dtype: torch.dtype,
    run: Trainer,
    fail_at: Callable[[int | None], None],
    tmp_path: Path,
) -> None:
    run(tmp_path / "whole", *overrides, dtype=dtype)
    fail_at(5)
    with pytest.raises(DiskError):
        run(tmp_path / "crashed", *overrides, dtype=dtype)
    fail_at(None)
    run(tmp_path / "crashed", *overrides, dtype=dtype, resume=True)
    assert left_behind(tmp_path / "crashed") == left_behind(tmp_path / "whole")


def test_a_run_resumes_bit_for_bit_after_every_step_and_after_warm_up(
    run: Trainer, fail_at: Callable[[int | None], None], tmp_path: Path
) -> None:
    overrides = ["schedule.checkpoint_every=1", "schedule.warmup_steps=1"]
    run(tmp_path / "whole", *overrides)
    told: list[str] = []
    for crash in (1, 2, 3, 4, 5):
        fail_at(crash)
        with pytest.raises(DiskError):
            run(tmp_path / "crashed", *overrides, resume=True, tell=told.append)
    fail_at(None)
    run(tmp_path / "crashed", *overrides, resume=True, tell=told.append)
    resumed = [line for line in told if line.startswith("resuming")]
    assert resumed == [f"resuming after step {step}" for step in (1, 2, 3, 4, 5)]
    assert left_behind(tmp_path / "crashed") == left_behind(tmp_path / "whole")


def test_the_resumed_clock_goes_on_where_it_stood(
    run: Trainer, fail_at: Callable[[int | None], None], tmp_path: Path
) -> None:
    fail_at(4)
    with pytest.raises(DiskError):
        run(tmp_path, "schedule.checkpoint_every=4")
    before = read_lines(tmp_path / "metrics.jsonl")[-1]
    assert before["step"] == 4
    fail_at(None)
    run(tmp_path, "schedule.checkpoint_every=4", resume=True)
    elapsed = [line["elapsed_ms"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert elapsed == sorted(elapsed)
    assert elapsed[3] == before["elapsed_ms"]


def test_scoring_that_failed_does_not_repeat_the_training(
    run: Trainer, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise DiskError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(training, "score_sequential", broken)
        with pytest.raises(DiskError):
            run(tmp_path / "crashed")
    told: list[str] = []
    run(tmp_path / "crashed", resume=True, tell=told.append)
    assert told == ["resuming after step 6"]
    assert left_behind(tmp_path / "crashed") == left_behind(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_stops_at_a_checkpoint_and_resuming_goes_on_bit_for_bit(
    number: signal.Signals, run: Trainer, whole: Path, tmp_path: Path
) -> None:
    """The signal comes when QAT starts, in step 5; that step is finished."""
    handler = signal.getsignal(number)

    def interrupt(line: str) -> None:
        if "quantization-aware" in line:
            os.kill(os.getpid(), number)

    with pytest.raises(StoppedError, match="stopped at a checkpoint after step 5; --resume goes"):
        run(tmp_path / "stopped", tell=interrupt)
    assert signal.getsignal(number) is handler
    assert len(losses(tmp_path / "stopped")) == 5
    run(tmp_path / "stopped", resume=True)
    assert left_behind(tmp_path / "stopped") == left_behind(whole)


# ---- resuming, and what is refused ----


def test_resuming_where_nothing_is_starts(run: Trainer, whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "new", resume=True)
    assert left_behind(tmp_path / "new") == left_behind(whole)


def test_a_finished_run_is_not_repeated(run: Trainer, tmp_path: Path) -> None:
    told: list[str] = []
    result = run(tmp_path)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert run(tmp_path, resume=True, tell=told.append) == result
    assert told == [f"already trained: {tmp_path / 'result.json'}"]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == written


def test_an_existing_run_is_not_written_over(run: Trainer, tmp_path: Path) -> None:
    run(tmp_path)
    before = left_behind(tmp_path)
    with pytest.raises(RunError, match=r"already holds a run; add --resume to go on with it, or"):
        run(tmp_path)
    assert left_behind(tmp_path) == before


@pytest.mark.parametrize(
    ("overrides", "settings", "named"),
    [
        (["optim.matrix_lr=0.5"], {}, "optim"),
        (["averaging.ema_decay=0.9", "schedule.iterations=9"], {}, "schedule, averaging"),
        ([], {"seed": 2}, "seed"),
        ([], {"dtype": torch.bfloat16}, "dtype"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_they_are_named(
    overrides: list[str],
    settings: dict[str, Any],
    named: str,
    run: Trainer,
    fail_at: Callable[[int | None], None],
    tmp_path: Path,
) -> None:
    fail_at(3)
    with pytest.raises(DiskError):
        run(tmp_path)
    fail_at(None)
    with pytest.raises(ConfigError, match=rf"written with other settings of {named}; resume with"):
        run(tmp_path, *overrides, resume=True, **settings)
    run(tmp_path, resume=True)


@pytest.mark.parametrize("settings", [{"seed": 2}, {"dtype": torch.bfloat16}])
def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(
    settings: dict[str, Any], run: Trainer, tmp_path: Path
) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match="finished run of another seed or other settings"):
        run(tmp_path, resume=True, **settings)


def test_settings_of_scoring_and_stages_may_change_between_a_run_and_its_resumption(
    run: Trainer, fail_at: Callable[[int | None], None], tmp_path: Path
) -> None:
    fail_at(3)
    with pytest.raises(DiskError):
        run(tmp_path)
    fail_at(None)
    kept = ("schedule.val_every=4", "schedule.checkpoint_every=1")
    run(tmp_path, "ttt.lr=0.5", "budget.artifact_bytes=9", *kept, resume=True)
    assert len(losses(tmp_path)) == 6


def test_resuming_on_other_data_is_refused(
    run: Trainer,
    fail_at: Callable[[int | None], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_at(3)
    with pytest.raises(DiskError):
        run(tmp_path)
    fail_at(None)
    monkeypatch.setattr(StepLoader, "num_tokens", 17)
    with pytest.raises(ConfigError, match="holds 17; resume with the data of the start"):
        run(tmp_path, resume=True)


def test_a_damaged_checkpoint_is_an_error_and_deleting_it_goes_back_bit_for_bit(
    run: Trainer, whole: Path, fail_at: Callable[[int | None], None], tmp_path: Path
) -> None:
    out = tmp_path / "damaged"
    fail_at(5)
    with pytest.raises(DiskError):
        run(out)
    fail_at(None)
    newest = max((out / "checkpoint").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(RunError, match=rf"{newest.name}.*damaged.*delete it to resume from"):
        run(out, resume=True)
    newest.unlink()
    run(out, resume=True)
    assert left_behind(out) == left_behind(whole)


def test_a_diverging_run_ends_with_its_step_and_no_result(run: Trainer, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"train_loss is nan at step \d: .*lower optim\."):
        run(tmp_path, "optim.scalar_lr=1e30", "schedule.checkpoint_every=1")
    assert not (tmp_path / "result.json").exists()
    for path in (tmp_path / "checkpoint").iterdir():
        assert int(path.stem[-8:]) == len(losses(tmp_path))  # none holds a loss that is no number


def test_missing_data_is_named_before_anything_is_written(run: Trainer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty"):
        run(tmp_path / "out", data=DataPaths(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()


def test_tokens_beyond_the_vocabulary_are_refused(
    run: Trainer, tiny_data: DataPaths, tmp_path: Path
) -> None:
    for path in tiny_data.root.iterdir():
        (tmp_path / path.name).symlink_to(path)
    shard = next(tmp_path.glob("fineweb_train_*"))
    shard.unlink()
    write_shard(shard, np.full(9000, 320, dtype=np.uint16))
    with pytest.raises(ShardError, match="token 320 lies outside the model's vocabulary of 320"):
        run(tmp_path / "out", data=DataPaths(tmp_path))


def test_an_export_that_the_run_is_bound_to_lack_is_refused_before_training(
    run: Trainer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="needs an SWA snapshot"):
        run(tmp_path / "out", "averaging.export=swa", "averaging.swa_every=7")
    assert not (tmp_path / "out").exists()


# ---- the wall clock ----


class HandClock:
    """Stands in for `time.perf_counter`, the process's clock; moves when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """Every training step takes 125 ms of this clock, and every validation 1000 s."""
    hand = HandClock()
    monkeypatch.setattr(time, "perf_counter", hand)
    read, score = StepLoader.micro_batches, training.score_sequential

    def micro_batches(loader: StepLoader, step: int) -> object:
        hand.seconds += 0.125
        return read(loader, step)

    def score_sequential(*arguments: Any) -> object:
        hand.seconds += 1000
        return score(*arguments)

    monkeypatch.setattr(StepLoader, "micro_batches", micro_batches)
    monkeypatch.setattr(training, "score_sequential", score_sequential)
    return hand


def test_the_budget_ends_training_and_the_rate_reaches_zero_with_it(
    hand: HandClock, run: Trainer, tmp_path: Path
) -> None:
    """A second of 125 ms steps is eight steps; warm-up and validation are not counted."""
    result = run(
        tmp_path,
        "schedule.iterations=1000",
        "schedule.max_wallclock_seconds=1",
        "schedule.warmup_steps=3",
        "schedule.val_every=4",
    )
    assert (result["steps"], result["stopped_by"]) == (8, "wallclock")
    assert result["train_seconds"] == 1.0
    written = read_lines(tmp_path / "metrics.jsonl")
    assert [line["elapsed_ms"] for line in written] == [125 * step for step in range(1, 9)]
    wanted = [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]  # the last ones: (8 - step) / 4
    assert [line["lr_scale"] for line in written] == wanted
    assert result["qat_step"] == 6


def test_a_resumed_run_has_only_the_rest_of_its_budget(
    hand: HandClock, run: Trainer, tmp_path: Path
) -> None:
    overrides = ["schedule.iterations=1000", "schedule.max_wallclock_seconds=1"]

    def interrupt(line: str) -> None:
        if "quantization-aware" in line:
            os.kill(os.getpid(), signal.SIGUSR1)

    run(tmp_path / "whole", *overrides)
    with pytest.raises(StoppedError, match="after step 7"):
        run(tmp_path / "stopped", *overrides, tell=interrupt)
    run(tmp_path / "stopped", *overrides, resume=True)
    assert left_behind(tmp_path / "stopped") == left_behind(tmp_path / "whole")


# ---- real processes ----


@pytest.fixture(scope="module")
def job_file(tiny_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("job") / "tiny.toml"
    path.write_text(tomli_w.dumps(job_to_sections(tiny_job)))
    return path


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def arguments(job_file: Path, data: DataPaths, out: str | Path, *words: str) -> list[str]:
    fixed = ["--seed", "1", "--device", "cpu"]
    places = ["--config", str(job_file), "--data", str(data.root), "--out", str(out)]
    return ["train", *places, *fixed, *words]


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def on_ranks(
    job_file: Path, tiny_data: DataPaths, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny job on 1, 2, 4 and 8 real processes, in a folder named by their number."""
    folder = tmp_path_factory.mktemp("ranks")
    script = str(Path(__file__).with_name("forked_ranks.py"))
    words = arguments(job_file, tiny_data, folder / "{ranks}")
    output = finish(start(script, "1", "2", "4", "8", "--", *words))
    assert output.count("trained 6 steps") == 4, output  # one rank of each run tells
    return folder


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_any_number_of_ranks_gives_the_same_losses(num_ranks: int, on_ranks: Path) -> None:
    """The order of float32 sums alone differs.

    It is not seen before QAT starts, with step 5; then it may flip a weight to the next of 63
    levels, which such a small model feels.
    """
    alone, ranks = (on_ranks / str(n) for n in (1, num_ranks))
    results = [read_json(out / "result.json") for out in (alone, ranks)]
    assert [result["world_size"] for result in results if result] == [1, num_ranks]
    far = np.abs(np.array(losses(alone)) - np.array(losses(ranks)))
    assert far[:4].max() < 1e-5
    assert far[4:].max() < 5e-3
    for key, tolerance in (("val_loss", 1e-3), ("val_bytes", 0), ("val_tokens", 0)):
        got, wanted = (result[key] for result in results if result)
        assert got == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_only_one_rank_writes(num_ranks: int, on_ranks: Path) -> None:
    names = [
        sorted(str(path.relative_to(out)) for path in out.rglob("*"))
        for out in (on_ranks / "1", on_ranks / str(num_ranks))
    ]
    assert names[0] == names[1]


def test_ranks_agree_on_the_end_of_the_budget(
    job_file: Path, tiny_data: DataPaths, tmp_path: Path
) -> None:
    """Started by torchrun; ranks that disagreed would wait for each other's reductions for ever."""
    budget = ("--set", "schedule.max_wallclock_seconds=0.5", "--set", "schedule.iterations=100000")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    words = arguments(job_file, tiny_data, tmp_path / "out", *budget)
    finish(start(*torchrun, "-m", "golf", *words))
    result = read_json(tmp_path / "out/result.json")
    assert result is not None
    assert result["stopped_by"] == "wallclock"
    assert result["train_seconds"] >= 0.5
    assert 1 <= result["steps"] == len(losses(tmp_path / "out")) < 100_000


def test_sigterm_to_a_real_process_writes_a_checkpoint_and_resuming_goes_on(
    run: Trainer, job_file: Path, tiny_data: DataPaths, tmp_path: Path
) -> None:
    iterations = "schedule.iterations=30"
    words = arguments(job_file, tiny_data, tmp_path / "out", "--set", iterations)
    process = start("-m", "golf", *words)
    deadline = time.monotonic() + 60
    while not losses_so_far(tmp_path / "out") and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the process's progress is all there is to wait for
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "golf: stopped at a checkpoint after step" in output
    done = len(losses(tmp_path / "out"))
    assert 1 <= done < 30
    assert [p.stem for p in (tmp_path / "out/checkpoint").iterdir()] == [f"step-{done:08d}"]
    assert run(tmp_path / "out", iterations, resume=True)["steps"] == 30
    assert [line["step"] for line in lines(tmp_path / "out")] == list(range(1, 31))


def losses_so_far(out: Path) -> list[float]:
    return losses(out) if TrainPaths(out).metrics.exists() else []
