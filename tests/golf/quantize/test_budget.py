from pathlib import Path

import pytest
import torch

from golf.config import ModelConfig, QuantizeConfig
from golf.quantize.artifact import write_artifact
from golf.quantize.budget import ArtifactReport, BudgetError, check_budget

REPORT = ArtifactReport(
    model_bytes=1_000_000,
    tensor_bytes={
        "tok_emb.weight": 100_000,
        "blocks.0.attn.c_q.weight": 250_000,
        "blocks.0.mlp.fc.weight": 600_000,
        "blocks.1.mlp.fc.weight": 40_000,
        "smear.gate": 9_000,
    },
)


def test_an_artifact_of_exactly_its_budget_passes() -> None:
    check_budget(REPORT, 2_345, 1_002_345)


def test_over_budget_says_by_how_much_and_what_weighs_most() -> None:
    with pytest.raises(BudgetError) as caught:
        check_budget(REPORT, 2_345, 1_000_000)
    text = str(caught.value)
    assert "2,345 bytes over its budget" in text
    assert "model 1,000,000 + code 2,345 = 1,002,345 bytes, allowed 1,000,000" in text
    assert "attention 250,000, mlp 640,000, embeddings 100,000, other 10,000" in text
    heaviest = ["blocks.0.mlp.fc.weight 600,000", "blocks.0.attn.c_q.weight 250,000"]
    assert ", ".join(heaviest) in text


def test_parts_of_a_real_artifact_add_up_to_its_bytes(tmp_path: Path) -> None:
    state = {
        "bigram.embed.weight": torch.randn(520, 128),
        "blocks.0.attn.proj.weight": torch.randn(260, 256),
        "resid_mix": torch.randn(2, 40_000),
        "smear.gate": torch.randn(64),
    }
    report = write_artifact(tmp_path / "a", state, ModelConfig(), QuantizeConfig(zstd_level=1))
    assert set(report.tensor_bytes) == set(state)
    assert sum(report.group_bytes.values()) == report.model_bytes == (tmp_path / "a").stat().st_size
    # The header and rounding are all that no tensor accounts for.
    assert 0 < report.model_bytes - sum(report.tensor_bytes.values()) < 2_000
    assert report.heaviest(1)[0][0] == "resid_mix"
