from __future__ import annotations

import pytest
import torch

from golf.config import ConfigError
from golf.model.linear import Linear, set_fake_quant
from golf.model.precision import autocast, choose_dtype
from golf.quantize.fake_quant import fake_quantize

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_fake_quantization_changes_the_forward_and_passes_gradients_straight_through() -> None:
    torch.manual_seed(0)
    linear, x = Linear(16, 4), torch.randn(3, 16)
    plain = linear(x)
    set_fake_quant(linear, True)
    quantized = linear(x)
    assert not torch.equal(plain, quantized)
    assert torch.equal(quantized, x @ fake_quantize(linear.weight).T)
    quantized.sum().backward()
    assert linear.weight.grad is not None
    torch.testing.assert_close(linear.weight.grad, x.sum(0).expand(4, 16))
    set_fake_quant(linear, False)
    assert torch.equal(linear(x), plain)


def test_every_linear_of_a_model_is_switched_and_has_no_bias() -> None:
    model = torch.nn.Sequential(Linear(4, 4), torch.nn.Sequential(Linear(4, 4)))
    set_fake_quant(model, True)
    linears = [m for m in model.modules() if isinstance(m, Linear)]
    assert [m.fake_quant for m in linears] == [True, True]
    assert [m.bias for m in linears] == [None, None]


def test_bfloat16_is_the_default_on_gpus_and_float32_on_the_cpu() -> None:
    assert choose_dtype(None, CUDA) == torch.bfloat16
    assert choose_dtype(None, CPU) == torch.float32
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16
    assert choose_dtype("float32", CUDA) == torch.float32
    with pytest.raises(ConfigError, match="'float16' must be one of float32, bfloat16"):
        choose_dtype("float16", CPU)


def test_a_linear_keeps_float32_weights_and_computes_in_bfloat16_under_autocast() -> None:
    linear, x = Linear(16, 4), torch.randn(3, 16)
    with autocast(CPU, torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert linear(x).dtype == torch.float32
    assert linear.weight.dtype == torch.float32
