"""The language model: embeddings, a U-Net of blocks, and a tied, soft-capped head.

1. Token and bigram embeddings are added, normalised and smeared; the result `x0` feeds every block.
2. The first half of the blocks push their outputs, the second half pop and add them.
3. The head is the token embedding, its logits soft-capped; the loss is float32 cross-entropy.

Parameter names are those of the challenge's checkpoints (pull request 414), so that published
weights load as they are.

Dimensions: B batch, T positions, S scored positions (the last S of T, or all), D width,
V vocabulary, L layers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golf.config import ModelConfig
from golf.model.attention import AttentionBackend, Rope
from golf.model.blocks import Block
from golf.model.embeddings import BigramHash, Smear, ValueEmbedding
from golf.model.linear import Linear

ORTHOGONAL_MIN_SIDE = 64
"""Linears with a shorter side keep torch's default start."""


class GPT(nn.Module):
    """The model of the record, at any size."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend) -> None:
        super().__init__()
        self.config = config
        D, L = config.model_dim, config.num_layers
        self.num_encoder_layers = L // 2
        self.tok_emb = nn.Embedding(config.vocab_size, D)
        self.bigram = BigramHash(config)
        self.smear = Smear(D)
        self.skip_weights = nn.Parameter(torch.ones(min(L // 2, L - L // 2), D))
        self.blocks = nn.ModuleList(Block(config, backend, i) for i in range(L))
        self.ve_shared = ValueEmbedding(config) if config.ve_layers else None
        self.ve_layer_scales = nn.ParameterList(torch.ones(1) for _ in config.ve_layers)

    def forward(self, ids: Tensor, targets: Tensor, rope: Rope) -> Tensor:
        """Negative log-likelihood in nats of each target, float32 [B, S].

        ids int [B, T]; targets int [B, S] belong to the last S positions.
        """
        logits = self.logits(ids, rope, targets.size(1))
        nll = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        return nll.view_as(targets)

    def logits(self, ids: Tensor, rope: Rope, S: int | None = None) -> Tensor:
        """ids int [B, T] -> [B, S, V] for the last S positions (default: all)."""
        cap = self.config.logit_softcap
        x = F.rms_norm(self._blocks(ids, rope, S or ids.size(1)), (self.config.model_dim,))
        return cap * torch.tanh(F.linear(x, self.tok_emb.weight.to(x.dtype)) / cap)

    def _blocks(self, ids: Tensor, rope: Rope, S: int) -> Tensor:
        T, L = ids.size(1), self.config.num_layers
        x: Tensor = self.tok_emb(ids)
        x = x + self.bigram(ids).to(x.dtype)
        x = x0 = self.smear(F.rms_norm(x, (self.config.model_dim,)))
        value_embeddings = self._value_embeddings(ids)
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            decoder_index = i - self.num_encoder_layers
            if decoder_index >= 0 and skips:
                x = x + self.skip_weights[decoder_index].to(x.dtype) * skips.pop()
            # Scores need the last block's output only where they are taken.
            x = block(x, x0, rope, value_embeddings.get(i), S if i == L - 1 else T)
            if decoder_index < 0:
                skips.append(x)
        return x

    def _value_embeddings(self, ids: Tensor) -> dict[int, Tensor]:
        if self.ve_shared is None:
            return {}
        ve = self.ve_shared(ids)
        return {
            layer: ve * scale.to(ve.dtype)
            for layer, scale in zip(self.config.ve_layers, self.ve_layer_scales, strict=True)
        }


def build_gpt(
    config: ModelConfig, backend: AttentionBackend, device: torch.device, dtype: torch.dtype
) -> GPT:
    """A freshly initialised model on `device`; draws from torch's global random state.

    Linears and vectors stay float32 and compute under autocast; the embeddings take `dtype`.
    """
    model = GPT(config, backend)
    initialise(model)
    for embedding in model.modules():
        if isinstance(embedding, nn.Embedding):
            embedding.to(dtype)
    return model.to(device)


@torch.no_grad()
def initialise(model: GPT) -> None:
    """The record's start: orthogonal matrices, output projections and bigrams at zero."""
    depth_scale = 1.0 / math.sqrt(2 * model.config.num_layers)
    for name, module in model.named_modules():
        if not isinstance(module, Linear):
            continue
        if min(module.weight.shape) >= ORTHOGONAL_MIN_SIDE:
            nn.init.orthogonal_(module.weight)
            if name.endswith(".proj"):
                module.weight.mul_(depth_scale)
        if name.endswith((".attn.proj", ".mlp.proj")):
            nn.init.zeros_(module.weight)
    nn.init.normal_(model.tok_emb.weight, std=model.config.tied_embed_init_std)
    nn.init.zeros_(model.bigram.embed.weight)
    if model.ve_shared is not None:
        nn.init.normal_(model.ve_shared.embed.weight, std=0.01)
