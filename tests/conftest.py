"""Folders of golden numbers and of shared data, which a checkout may lack; and a tiny data folder
with a job to go with it, for tests that really train and really score."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from golf.config import Job, job_from_sections
from golf.records import DataPaths

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
NUM_DOCS = 10
VAL_DOCS = 1
VOCAB_SIZE = 320


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {folder} beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Numbers computed with the challenge's public implementation."""
    return _folder("golden")


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """The challenge's published tokenizer and logs."""
    return _folder("data")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> DataPaths:
    """The first chapters of the embedded corpus, prepared: do not write into this folder."""
    from golf.data.documents import read_documents
    from golf.data.prepare import embedded_corpus, prepare

    folder = tmp_path_factory.mktemp("tiny_data")
    docs = folder / "docs.jsonl"
    texts = islice(read_documents(embedded_corpus()), NUM_DOCS)
    docs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([docs], folder / "data", vocab_size=VOCAB_SIZE, val_docs=VAL_DOCS, workers=1)
    return DataPaths(folder / "data")


@pytest.fixture(scope="session")
def tiny_job() -> Job:
    """Two layers, trained for six steps of `tiny_data` in a moment, QAT and SWA included."""
    return job_from_sections(
        {
            "job": {"name": "tiny"},
            "model": {
                "vocab_size": VOCAB_SIZE,
                "num_layers": 2,
                "model_dim": 32,
                "num_heads": 4,
                "num_kv_heads": 2,
                "mlp_mult": 2,
                "bigram_vocab_size": 64,
                "bigram_dim": 8,
                "xsa_last_n": 1,
                "rope_dims": 4,
                "ve_dim": 8,
                "ve_layers": [1],
            },
            "data": {"train_batch_tokens": 512, "train_seq_len": 32},
            "optim": {"muon_momentum_warmup_steps": 4},
            "schedule": {
                "iterations": 6,
                "warmdown_iters": 4,
                "warmup_steps": 0,
                "max_wallclock_seconds": 0,
                "late_qat_threshold": 0.6,
                "checkpoint_every": 2,
            },
            "averaging": {"ema_decay": 0.5, "swa_every": 2, "swa_start_scale": 0.9},
            "quantize": {"zstd_level": 1},
            "evaluate": {"eval_seq_len": 32, "stride": 8, "batch_windows": 8},
            "ttt": {"chunk_tokens": 256, "lr": 0.02, "batch_seqs": 4, "checkpoint_chunks": 3},
            "resources": {"gpus_per_node": 0, "cpus_per_task": 1, "mem_gb": 2},
        }
    )
