import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from golf.quantize.fake_quant import fake_quantize


def test_values_lie_on_the_rows_grid() -> None:
    weight = torch.tensor([[0.1, -0.5, 0.02], [3.1, -6.2, 0.4]])
    step = torch.tensor([[1 / 31], [0.2]])
    steps = fake_quantize(weight) / step
    torch.testing.assert_close(steps, torch.tensor([[3.0, -16, 1], [16, -31, 2]]))


def test_gradient_is_the_identity() -> None:
    weight = torch.randn(4, 8, requires_grad=True)
    upstream = torch.randn(4, 8)
    fake_quantize(weight).backward(upstream)
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e3))
def test_error_is_at_most_half_a_step(seed: int, size: float) -> None:
    weight = torch.randn(5, 17, generator=torch.Generator().manual_seed(seed)) * size
    step = (weight.abs().amax(dim=1, keepdim=True) / 31).clamp_min(1 / 31)
    assert ((fake_quantize(weight) - weight).abs() <= 0.50001 * step).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept_also_under_autocast(dtype: torch.dtype) -> None:
    weight = torch.randn(4, 8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = fake_quantize(weight)
    assert result.dtype == dtype
    assert torch.equal(result, fake_quantize(weight))


def test_one_graph_without_breaks() -> None:
    """`torch.compile(fullgraph=True)` takes it; the eager backend shows that without a compiler."""
    weight = torch.randn(4, 8)
    compiled = torch.compile(fake_quantize, fullgraph=True, backend="eager")
    assert torch.equal(compiled(weight), fake_quantize(weight))
