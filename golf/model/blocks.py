"""A transformer block: attention and a squared-ReLU MLP on a stream that remembers its start.

Dimensions: B batch, T positions, S scored positions (the last S of T), D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golf.config import ModelConfig
from golf.model.attention import Attention, AttentionBackend, Rope
from golf.model.linear import Linear


class MLP(nn.Module):
    """proj(relu(fc(x))^2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = int(config.mlp_mult * config.model_dim)
        self.fc = Linear(config.model_dim, hidden)
        self.proj = Linear(hidden, config.model_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(torch.relu(self.fc(x)).square())
        return out


class Block(nn.Module):
    """Layer `index` of the model, with its residual connections and learned mixing scales."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend, index: int) -> None:
        super().__init__()
        D = config.model_dim
        exclusive = index >= config.num_layers - config.xsa_last_n
        self.attn = Attention(config, backend, exclusive)
        self.mlp = MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(D))
        self.mlp_scale = nn.Parameter(torch.ones(D))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(D), torch.zeros(D))))
        self.norm_scale = 1.0 / math.sqrt(index + 1)
        self.width = D

    def forward(self, x: Tensor, x0: Tensor, rope: Rope, ve: Tensor | None, S: int) -> Tensor:
        """x, x0 [B, T, D] -> [B, S, D]: keys and values of all positions, the rest of S."""
        mix = self.resid_mix.to(x.dtype)
        x = mix[0] * x + mix[1] * x0
        attended = self.attn(self._norm(x), rope, ve, S)
        x = x[:, x.size(1) - S :] + self.attn_scale.to(x.dtype) * attended
        out: Tensor = x + self.mlp_scale.to(x.dtype) * self.mlp(self._norm(x))
        return out

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.width,)) * self.norm_scale
