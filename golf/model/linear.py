"""The linear layer of the model: no bias, and late quantization-aware training on demand."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from golf.quantize.fake_quant import fake_quantize


class Linear(nn.Linear):
    """y = x W^T with W float32 [out, in]; with `fake_quant` the forward uses W rounded to int6."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.fake_quant = False

    def forward(self, x: Tensor) -> Tensor:
        weight = fake_quantize(self.weight) if self.fake_quant else self.weight
        return F.linear(x, weight)


def set_fake_quant(model: nn.Module, on: bool) -> None:
    """Turn the fake quantization of every `Linear` of the model on or off."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.fake_quant = on
