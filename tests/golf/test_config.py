"""The job file against the published configuration, and what is said of a wrong one."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golf.config import (
    ConfigError,
    Job,
    job_from_sections,
    job_to_sections,
    load_job,
)
from golf.sections import parse_override

JOBS = Path(__file__).resolve().parents[2] / "jobs"

JOB_FILES = sorted(path for path in JOBS.glob("*.toml") if path.name != "baselines.toml")
"""All but the published records that lie beside them to compare with."""

RECORD: dict[str, dict[str, Any]] = {
    "job": {"name": "record"},
    "model": {
        "vocab_size": 1024, "num_layers": 11, "model_dim": 512, "num_heads": 8, "num_kv_heads": 4,
        "mlp_mult": 3.0, "bigram_vocab_size": 2048, "bigram_dim": 128, "xsa_last_n": 4,
        "rope_dims": 16, "rope_base": 10000.0, "ve_dim": 128, "ve_layers": [9, 10],
        "logit_softcap": 30.0, "qk_gain_init": 1.5, "tied_embed_init_std": 0.005,
    },
    "data": {"train_batch_tokens": 786_432, "train_seq_len": 2048},
    "optim": {
        "matrix_lr": 0.025, "scalar_lr": 0.025, "tied_embed_lr": 0.035, "muon_momentum": 0.99,
        "muon_momentum_warmup_start": 0.92, "muon_momentum_warmup_steps": 1500, "muon_wd": 0.04,
        "adam_wd": 0.04, "beta1": 0.9, "beta2": 0.95, "adam_eps": 1e-8, "grad_clip_norm": 0.3,
    },
    "schedule": {
        "iterations": 20_000, "warmdown_iters": 3500, "warmup_steps": 20,
        "max_wallclock_seconds": 600.0, "late_qat_threshold": 0.15,
    },
    "averaging": {"ema_decay": 0.997, "swa_every": 50, "swa_start_scale": 0.2, "export": "ema"},
    "quantize": {
        "clip_percentiles": [0.999, 0.9995, 0.9999, 0.99999, 1.0], "scale_floor": 1.0,
        "zstd_level": 22,
    },
    "evaluate": {"eval_seq_len": 2048, "stride": 64, "batch_windows": 32, "tail": "cut"},
    "ttt": {
        "chunk_tokens": 32_768, "lr": 0.002, "momentum": 0.9, "epochs": 3, "batch_seqs": 32,
        "grad_clip": 1.0, "freeze_blocks": 0, "schedule": "strict",
    },
    "budget": {"artifact_bytes": 16_000_000, "train_seconds": 600.0, "eval_seconds": 600.0},
    "resources": {"nodes": 1, "gpus_per_node": 8, "cpus_per_task": 64, "mem_gb": 200,
                  "time_minutes": 60},
    "container": {"runtime": "none", "image": "", "mounts": [], "env": {}},
}  # fmt: skip
"""The keys that users script against, with the published record's values."""

OURS = {
    ("data", "source"): "challenge",
    ("data", "val_docs"): 50,
    ("container", "image_id"): "",
    ("schedule", "val_every"): 0,
    ("schedule", "checkpoint_every"): 1000,
    ("ttt", "checkpoint_chunks"): 50,
    ("ttt", "keep_checkpoints"): 2,
    ("fanout", "workers"): 0,
    ("fanout", "nodes"): 1,
    ("fanout", "adapters"): 0,
    ("fanout", "run_ahead"): 0,
    ("fanout", "max_recoveries"): 8,
    ("fanout", "call_timeout_s"): 1800.0,
}
"""Keys beyond the agreed ones."""


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    return {(s, key): value for s, table in sections.items() for key, value in table.items()}


def test_the_record_job_has_the_published_value_of_every_key_and_no_other_key() -> None:
    assert flat(job_to_sections(load_job(JOBS / "record.toml"))) == flat(RECORD) | OURS


def test_the_record_job_spells_every_key_out() -> None:
    written = tomllib.loads((JOBS / "record.toml").read_text())
    assert written == job_to_sections(load_job(JOBS / "record.toml"))


def test_what_is_left_out_takes_the_record_s_value_but_keeps_the_tail() -> None:
    wanted = flat(RECORD) | OURS | {("evaluate", "tail"): "keep"}
    assert flat(job_to_sections(Job())) == wanted
    one = job_from_sections({"ttt": {"lr": 0.001}})
    assert flat(job_to_sections(one)) == wanted | {("ttt", "lr"): 0.001}


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.stem)
def test_every_job_that_ships_can_be_read_and_written_and_read(path: Path) -> None:
    job = load_job(path)
    assert job_from_sections(job_to_sections(job)) == job


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Job().model.num_layers = 3  # type: ignore[misc]


# ---- unknown names ----


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"modle": {}}, "unknown section [modle]; did you mean model?"),
        ({"eval": {}}, "unknown section [eval]; did you mean evaluate?"),
        ({"zzzzz": {}}, "unknown section [zzzzz]; known: job, model, data,"),
        ({"model": {"num_layer": 3}}, "unknown key model.num_layer; did you mean num_layers?"),
        ({"optim": {"matrix_Ir": 1.0}}, "unknown key optim.matrix_Ir; did you mean matrix_lr?"),
        ({"ttt": {"qqqq": 1}}, "unknown key ttt.qqqq; known: chunk_tokens, lr,"),
        ({"seed": 3}, "seed stands outside a section"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_right_one(
    sections: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        job_from_sections(sections, where="my.toml")
    assert str(caught.value).startswith(f"my.toml: {text}")


def test_an_unknown_name_in_an_override_is_answered_too() -> None:
    with pytest.raises(ConfigError, match=r"unknown key ttt\.learning_rate"):
        job_from_sections({}, ["ttt.learning_rate=0.1"])
    with pytest.raises(ConfigError, match=r"unknown section \[tt\]; did you mean ttt\?"):
        job_from_sections({}, ["tt.lr=0.1"])


# ---- --set ----


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("ttt.lr=0.001", ("ttt", "lr", 0.001)),
        (" ttt.lr = 1e-3 ", ("ttt", "lr", 0.001)),
        ("schedule.iterations=2_000", ("schedule", "iterations", 2000)),
        ("model.ve_layers=[1, 2]", ("model", "ve_layers", [1, 2])),
        ("averaging.export=ema+swa", ("averaging", "export", "ema+swa")),
        ('averaging.export="swa"', ("averaging", "export", "swa")),
        ("job.name=a=b", ("job", "name", "a=b")),
        ("container.env={A = 'b'}", ("container", "env", {"A": "b"})),
        ("data.source=/some/folder", ("data", "source", "/some/folder")),
    ],
)
def test_an_override_is_read_as_toml_and_else_as_a_string(
    text: str, parsed: tuple[str, str, Any]
) -> None:
    assert parse_override(text) == parsed


@pytest.mark.parametrize("text", ["", "ttt.lr", "lr=3", "=3", ".lr=3", "ttt.=3", "ttt"])
def test_an_override_of_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must look like section\.key=value, as in ttt\.lr"):
        parse_override(text)


def test_overrides_win_over_the_file_and_later_ones_over_earlier(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[ttt]\nlr = 0.5\nepochs = 2\n")
    job = load_job(tmp_path / "a.toml", ["ttt.lr=0.1", "model.ve_layers=[]", "ttt.lr=0.2"])
    assert (job.ttt.lr, job.ttt.epochs, job.model.ve_layers) == (0.2, 2, ())


def test_an_override_that_injects_further_toml_is_only_a_string() -> None:
    assert parse_override("job.name=1\nvalue = 2") == ("job", "name", "1\nvalue = 2")


# ---- types ----


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model.num_layers=3.0", "model.num_layers=3.0 must be a whole number"),
        ("model.num_layers=true", "model.num_layers=True must be a whole number"),
        ("model.num_layers=three", "model.num_layers='three' must be a whole number"),
        ("ttt.lr=nan", "ttt.lr=nan must be a finite number"),
        ("ttt.lr=inf", "ttt.lr=inf must be a finite number"),
        ("ttt.lr=true", "ttt.lr=True must be a finite number"),
        ("job.name=3", "job.name=3 must be a string"),
        ("model.ve_layers=3", "model.ve_layers=3 must be a list"),
        ("model.ve_layers=[1.5]", "model.ve_layers=1.5 must be a whole number"),
        ("container.env=[]", "container.env=[] must be a table of strings"),
        ("container.env={A = 1}", "container.env.A=1 must be a string"),
        ("ttt.schedule=pre-eval", "ttt.schedule='pre-eval' must be one of 'strict', 'pipelined'"),
        ("averaging.export=last", "averaging.export='last' must be one of 'ema', 'swa', 'ema+swa'"),
        ("evaluate.tail=drop", "evaluate.tail='drop' must be one of 'keep', 'cut'"),
        ("evaluate.tail=[1]", "evaluate.tail=[1] must be one of 'keep', 'cut'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_the_right_one(override: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job_from_sections({}, [override])
    assert str(caught.value) == f"job: {text}"


def test_a_whole_number_is_a_fine_float() -> None:
    value = job_from_sections({}, ["model.mlp_mult=3"]).model.mlp_mult
    assert (value, type(value)) == (3.0, float)


# ---- values ----


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["model.num_heads=7"], "model.model_dim=512 must be a multiple of model.num_heads=7"),
        (["model.num_kv_heads=3"], "model.num_heads=8 must be a multiple of model.num_kv_heads=3"),
        (["model.vocab_size=65537"], "must fit uint16 shards"),
        (["model.num_layers=0"], "model.num_layers must be at least 1"),
        (["model.rope_dims=15"], "model.rope_dims=15 must be even, at least 4 and at most the"),
        (["model.rope_dims=66"], "at most the head width 64"),
        (["model.xsa_last_n=12"], "between 0 and num_layers=11"),
        (["model.ve_layers=[9, 11]"], "must be different layers below num_layers=11"),
        (["model.ve_layers=[9, 9]"], "must be different layers below num_layers=11"),
        (["model.ve_layers=[-1]"], "must be different layers below num_layers=11"),
        (["model.num_layers=9"], "model.ve_layers=[9, 10] must be different layers below"),
        (["data.train_batch_tokens=786431"], "must be a multiple of 8 x data.train_seq_len=2048"),
        (["data.train_seq_len=0"], "data.train_seq_len must be at least 1"),
        (["optim.matrix_lr=-1"], "optim.matrix_lr must not be negative"),
        (["optim.beta2=1"], "optim.beta2 must lie in [0, 1)"),
        (["schedule.iterations=0"], "schedule.iterations must be at least 1"),
        (["schedule.max_wallclock_seconds=-1"], "0 means no wall-clock budget"),
        (["schedule.late_qat_threshold=1.5"], "schedule.late_qat_threshold must lie in [0, 1]"),
        (["averaging.ema_decay=1"], "averaging.ema_decay must lie in [0, 1)"),
        (["averaging.swa_every=0"], "averaging.swa_every must be at least 1"),
        (["quantize.clip_percentiles=[]"], "at least one percentile in (0, 1]"),
        (["quantize.clip_percentiles=[99.9]"], "at least one percentile in (0, 1]"),
        (["quantize.zstd_level=23"], "quantize.zstd_level must lie between 1 and 22"),
        (["evaluate.stride=0"], "evaluate.stride=0 must lie between 1 and eval_seq_len=2048"),
        (["evaluate.stride=2049"], "or tokens would be left out"),
        (["ttt.momentum=1"], "ttt.momentum must lie in [0, 1)"),
        (["ttt.freeze_blocks=12"], "ttt.freeze_blocks=12 exceeds model.num_layers=11"),
        (["ttt.chunk_tokens=2047"], "must hold at least one row of evaluate.eval_seq_len=2048"),
        (["budget.artifact_bytes=0"], "budget.artifact_bytes must be positive"),
        (["resources.gpus_per_node=3"], "must be 0, 1, 2, 4 or 8"),
        (["container.runtime=docker"], "container.runtime=docker needs container.image"),
        (["job.name=a/b"], "job.name='a/b' must be letters, digits, '-', '_' and '.'"),
        (["job.name="], "job.name='' must be letters"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(overrides: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job_from_sections({}, overrides)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.name"):
        job_from_sections({"job": {"name": name}})


def test_a_node_without_gpus_runs_one_rank() -> None:
    assert job_from_sections({}, ["resources.gpus_per_node=0"]).ranks_per_node == 1
    assert Job().ranks_per_node == 8


@settings(max_examples=30)
@given(
    lr=st.floats(0, 1e3),
    layers=st.lists(st.integers(0, 10), unique=True, max_size=4),
    percentiles=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4),
    env=st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_a_job_written_out_reads_back_the_same(
    lr: float, layers: list[int], percentiles: list[float], env: dict[str, str]
) -> None:
    sections = {
        "ttt": {"lr": lr},
        "model": {"ve_layers": layers},
        "quantize": {"clip_percentiles": percentiles},
        "container": {"env": env},
    }
    job = job_from_sections(sections)
    assert (job.ttt.lr, list(job.model.ve_layers)) == (lr, layers)
    assert job_from_sections(job_to_sections(job)) == job


# ---- the file ----


def test_a_missing_job_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job file .*gone\.toml does not exist"):
        load_job(tmp_path / "gone.toml")


def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[model]\nnum_layers = = 3\n")
    with pytest.raises(ConfigError, match=r"bad\.toml is no valid TOML: .*line 2"):
        load_job(tmp_path / "bad.toml")


def test_a_folder_or_binary_file_cannot_be_a_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_job(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_job(tmp_path / "binary.toml")


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[ttt]\nepochs = -1\n")
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    assert str(caught.value) == f"{path}: ttt.epochs must not be negative"


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        (("fanout.nodes=2",), "set fanout.workers to a multiple"),
        (("fanout.nodes=2", "fanout.workers=3"), "set fanout.workers to a multiple"),
        (("fanout.workers=16",), "set fanout.workers to at most 8, or more fanout.nodes"),
        (("fanout.call_timeout_s=0",), "fanout.call_timeout_s must be positive"),
    ],
)
def test_workers_that_cannot_be_placed_are_refused_with_the_fix(
    settings: tuple[str, ...], fix: str
) -> None:
    with pytest.raises(ConfigError, match=fix):
        job_from_sections({}, settings)


def test_workers_may_be_as_many_as_the_gpus_of_all_nodes() -> None:
    job = job_from_sections({}, ("fanout.nodes=2", "fanout.workers=16"))
    assert job.fanout.workers_per_node == 8
