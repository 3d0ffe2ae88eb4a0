"""Small models whose every part is alive, and tokens for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from golf.config import ModelConfig
from golf.model.attention import choose_backend
from golf.model.gpt import GPT, build_gpt

CPU = torch.device("cpu")

Golden = Callable[[str], dict[str, Any]]
"""A reader of golden files by name: tensors, and strings as they are."""

SMALL = ModelConfig(
    vocab_size=61,
    num_layers=4,
    model_dim=32,
    num_heads=4,
    num_kv_heads=2,
    mlp_mult=2.0,
    bigram_vocab_size=48,
    bigram_dim=8,
    xsa_last_n=2,
    rope_dims=4,
    ve_dim=8,
    ve_layers=(1, 3),
)


def fresh_gpt(config: ModelConfig = SMALL, dtype: torch.dtype = torch.float32) -> GPT:
    """A model as training starts with it."""
    torch.manual_seed(0)
    return build_gpt(config, choose_backend(CPU, dtype), CPU, dtype)


def live_gpt(config: ModelConfig = SMALL, dtype: torch.dtype = torch.float32) -> GPT:
    """A model of random weights, none of them zero, so that every part has a say in the output."""
    gpt = fresh_gpt(config, dtype)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + 0.1)
    return gpt


def random_ids(*shape: int, config: ModelConfig = SMALL, seed: int = 1) -> Tensor:
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))
