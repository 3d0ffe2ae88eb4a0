"""What a token brings along: hashed bigrams, the smear gate and the shared value embedding.

Dimensions: B batch, T positions, D width, M rows of the bigram table, K key/value heads, d head
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golf.config import ModelConfig
from golf.model.linear import Linear

HASH_TOKEN, HASH_PREVIOUS = 36313, 27191
"""Multipliers of the bigram hash, from the challenge's public code; part of the model's format."""


def bigram_ids(ids: Tensor, num_rows: int) -> Tensor:
    """Row of the bigram table for each position; ids int [B, T] -> int32 [B, T].

    The products wrap around in 32 bits, as in the public code. A sequence's first position has no
    previous token and takes the last row.
    """
    ids = ids.to(torch.int32)
    hashed = (HASH_TOKEN * ids[:, 1:]).bitwise_xor(HASH_PREVIOUS * ids[:, :-1]) % (num_rows - 1)
    return F.pad(hashed, (1, 0), value=num_rows - 1)


class BigramHash(nn.Module):
    """Adds what the last two tokens together suggest."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_rows = config.bigram_vocab_size
        self.embed = nn.Embedding(config.bigram_vocab_size, config.bigram_dim)
        self.proj = Linear(config.bigram_dim, config.model_dim)
        self.scale = nn.Parameter(torch.tensor(0.05))

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, D]."""
        y: Tensor = self.proj(self.embed(bigram_ids(ids, self.num_rows)))
        return y * self.scale.to(y.dtype)


class Smear(nn.Module):
    """Mixes a learned share of the previous position into each position."""

    def __init__(self, model_dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(model_dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]; before the first position there is nothing."""
        g = torch.sigmoid(self.gate).to(x.dtype)
        previous = F.pad(x[:, :-1], (0, 0, 1, 0))
        return (1 - g) * x + g * previous


class ValueEmbedding(nn.Module):
    """One token embedding for the attention values of several layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.ve_dim)
        self.proj = Linear(config.ve_dim, config.num_kv_heads * config.head_dim)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, K*d]."""
        y: Tensor = self.proj(self.embed(ids))
        return y * self.scale.to(y.dtype)
