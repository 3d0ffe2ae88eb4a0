"""Which optimizer moves which parameter: Muon the matrices, AdamW everything else.

1. 2-D weights of the blocks, and the projections of the bigram and value embeddings: Muon.
2. The three embedding tables: AdamW at the embedding rate.
3. Vectors, gates, scalars, `resid_mix` and `skip_weights` (2-D, but no matrices): AdamW.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from golf.config import OptimConfig
from golf.optim.muon import Muon

EMBEDDINGS = ("tok_emb.weight", "bigram.embed.weight", "ve_shared.embed.weight")


def is_matrix(name: str) -> bool:
    """Whether Muon moves the parameter of this name."""
    return name.endswith(".weight") and name not in EMBEDDINGS


class Optimizers:
    """Both optimizers of a model, with the state that a checkpoint keeps."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        self.named = dict(model.named_parameters())
        self.muon = Muon((p for n, p in self.named.items() if is_matrix(n)), config.muon_wd)
        embeddings = [p for n, p in self.named.items() if n in EMBEDDINGS]
        vectors = [p for n, p in self.named.items() if not is_matrix(n) and n not in EMBEDDINGS]
        self.adamw = torch.optim.AdamW(
            [
                {"params": embeddings, "lr": config.tied_embed_lr},
                {"params": vectors, "lr": config.scalar_lr},
            ],
            betas=(config.beta1, config.beta2),
            eps=config.adam_eps,
            weight_decay=config.adam_wd,
            fused=True,
        )

    def step(self, lr_scale: float, muon_momentum: float) -> None:
        """One step of both from the gradients at hand."""
        rates = (self.config.tied_embed_lr, self.config.scalar_lr)
        for group, rate in zip(self.adamw.param_groups, rates, strict=True):
            group["lr"] = rate * lr_scale
        self.adamw.step()
        self.muon.step(self.config.matrix_lr * lr_scale, muon_momentum)

    def state(self) -> dict[str, Tensor]:
        """All state as named tensors; `load_state` reads it back bit for bit."""
        tensors = {}
        for name, p in self.named.items():
            if p in self.muon.momenta:
                tensors[f"muon.{name}"] = self.muon.momenta[p]
            for key, value in self.adamw.state.get(p, {}).items():
                tensors[f"adamw.{key}.{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.adamw.state.clear()
        for momentum in self.muon.momenta.values():
            momentum.zero_()
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if kind == "muon":
                self.muon.momenta[self.named[name]].copy_(value)
            elif kind == "adamw":
                entry, _, name = name.partition(".")
                p = self.named[name]
                device = "cpu" if entry == "step" and p.device.type == "cpu" else p.device
                self.adamw.state[p][entry] = value.to(device).clone()
