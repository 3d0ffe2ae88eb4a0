import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golf.config import QuantizeConfig
from golf.quantize.gptq_lite import (
    QuantizeError,
    dequantize,
    quantize_int6,
    quantize_int8,
    quantize_state,
    row_quantiles,
    scheme_for,
)

RECORD = QuantizeConfig()


def five_passes(
    matrix: Tensor, percentiles: tuple[float, ...], scale_floor: float
) -> tuple[Tensor, Tensor]:
    """The rule of the specification, word for word."""
    best_error = float("inf")
    best = (torch.empty(0), torch.empty(0))
    for percentile in percentiles:
        clip = torch.quantile(matrix.abs(), percentile, dim=1)
        step = (clip / 31).clamp_min(scale_floor / 31).half()
        values = torch.clamp(torch.round(matrix / step.float()[:, None]), -31, 31)
        error = (matrix - values * step.float()[:, None]).square().mean().item()
        if error < best_error:
            best_error, best = error, (values.to(torch.int8), step)
    return best


def random_matrix(seed: int, rows: int, columns: int, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(rows, 1, generator=generator).mul(0.5).exp()
    return torch.randn(rows, columns, generator=generator) * spread * size


def test_integers_and_steps_equal_the_published_ones(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "quant.npz")
    matrix = torch.from_numpy(golden["W"])
    for (values, steps), bits in [
        (quantize_int6(matrix, RECORD.clip_percentiles, 1.0), 6),
        (quantize_int8(matrix, 1.0), 8),
    ]:
        assert np.array_equal(steps.float().numpy(), golden[f"s{bits}"])
        assert np.array_equal(values.numpy(), golden[f"q{bits}"])


def test_schemes_equal_the_published_plan(golden_dir: Path) -> None:
    plan = json.loads((golden_dir / "quant_plan.json").read_text())
    large = torch.empty(256, 512, device="meta")
    small = torch.empty(512, 128, device="meta")
    for name, wanted in plan.items():
        scheme = scheme_for(name, small if wanted == "passthrough" else large)
        assert scheme == ("float16" if wanted == "passthrough" else wanted), name


def test_large_control_tensors_stay_float32() -> None:
    assert scheme_for("skip_weights", torch.empty(65_537, device="meta")) == "float32"
    assert scheme_for("skip_weights", torch.empty(65_536, device="meta")) == "float16"
    assert scheme_for("bigram.proj.weight", torch.empty(65_537, device="meta")) == "int6"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    columns=st.sampled_from([2, 3, 64, 700, 1100]),
    size=st.sampled_from([0.01, 0.2, 0.3, 0.5, 5.0]),
    scale_floor=st.sampled_from([1.0, 0.1, 2.0, 1e-4]),
    percentiles=st.sampled_from([RECORD.clip_percentiles, (0.5,), (1.0, 0.9), (0.99, 0.99)]),
)
def test_skipped_rows_and_candidates_change_nothing(
    seed: int, columns: int, size: float, scale_floor: float, percentiles: tuple[float, ...]
) -> None:
    matrix = random_matrix(seed, 6, columns, size)
    values, steps = quantize_int6(matrix, percentiles, scale_floor)
    wanted_values, wanted_steps = five_passes(matrix, percentiles, scale_floor)
    assert torch.equal(steps, wanted_steps)
    assert torch.equal(values, wanted_values)


@given(
    seed=st.integers(0, 2**31),
    columns=st.integers(1, 300),
    percentiles=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4),
)
def test_row_quantiles_equal_torch(seed: int, columns: int, percentiles: list[float]) -> None:
    matrix = random_matrix(seed, 3, columns, 1.0).abs()
    rows = row_quantiles(matrix, tuple(percentiles))
    for row, percentile in zip(rows, percentiles, strict=True):
        assert torch.equal(row, torch.quantile(matrix, percentile, dim=1))


def test_scale_floor_is_a_setting() -> None:
    matrix = random_matrix(0, 4, 64, 0.01)
    _, record = quantize_int6(matrix, (1.0,), 1.0)
    _, double = quantize_int6(matrix, (1.0,), 2.0)
    _, none = quantize_int6(matrix, (1.0,), 0.0)
    assert torch.equal(record, torch.full((4,), 1 / 31).half())
    assert torch.equal(double, torch.full((4,), 2 / 31).half())
    assert torch.equal(none, (matrix.abs().amax(dim=1) / 31).half())


def test_rows_of_zeros_stay_zero_also_without_a_floor() -> None:
    matrix = random_matrix(0, 3, 64, 1.0)
    matrix[1] = 0
    for scale_floor in (0.0, 1.0):
        for values, _ in (
            quantize_int6(matrix, (0.999, 1.0), scale_floor),
            quantize_int8(matrix, scale_floor),
        ):
            assert not values[1].any()
            assert values[0].any()


def test_a_state_comes_back_within_half_a_step() -> None:
    state = {
        "tok_emb.weight": random_matrix(1, 520, 128, 0.3),
        "blocks.0.attn.c_q.weight": random_matrix(2, 300, 256, 0.3).bfloat16(),
        "bigram.scale": torch.tensor(0.05),
    }
    stored = quantize_state(state, RECORD)
    assert [tensor.scheme for tensor in stored.values()] == ["int8", "int6", "float16"]
    back = dequantize(stored)
    assert all(tensor.dtype == torch.float32 for tensor in back.values())
    embedding = stored["tok_emb.weight"].steps
    assert embedding is not None
    # int8 reads back by a rounded step: its error adds up to 127 times the rounding of float16.
    error = (back["tok_emb.weight"] - state["tok_emb.weight"]).abs()
    assert (error <= embedding.float()[:, None] * (0.5 + 127 / 2048)).all()
    assert back["bigram.scale"].shape == ()
    assert back["bigram.scale"] == torch.tensor(0.05).half()


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.tensor([1.0, float("nan")]), "NaN or infinite"),
        (torch.tensor([1.0, float("inf")]), "NaN or infinite"),
        (torch.zeros(0, 4), "it is empty"),
        (torch.arange(3), "not of floats"),
        (torch.tensor([1e6]), "1e\\+06 is beyond the range of float16"),
        (torch.full((300, 300), 1e9), "beyond the range of float16"),
        (torch.zeros(90_000), "not \\[R, C\\]"),
    ],
)
def test_what_cannot_be_quantized_is_refused_by_name(tensor: Tensor, text: str) -> None:
    with pytest.raises(QuantizeError, match=f"blocks.3.mlp.fc.weight.*{text}"):
        quantize_state({"blocks.3.mlp.fc.weight": tensor}, RECORD)
