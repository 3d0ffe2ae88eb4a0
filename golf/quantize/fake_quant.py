"""Fake quantization of late QAT: a Linear's forward sees its weight on the int6 grid.

1. Each row's step is its largest magnitude over 31, at least 1/31.
2. The row is rounded to whole steps and clamped to [-32, 31] of them.
3. The gradient passes as if nothing had happened (straight-through).

Source: `CastedLinear` of pull request 414 of the parameter-golf challenge. There the sum of step 3
runs in the activation's dtype; here it runs in float32 and autocast rounds the result afterwards,
which is at least as close to the grid and equal in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 31
"""Positive levels of int6. As published, training clamps to [-32, 31] and the artifact to +-31."""


def fake_quantize(weight: Tensor) -> Tensor:
    """`weight` [out, in] on its rows' int6 grid, of the same dtype; its gradient is the identity.

    Safe under `torch.compile` and autocast: elementwise operations and one row maximum, no branch
    on values.
    """
    with torch.no_grad():
        rows = weight.float()
        step = (rows.abs().amax(dim=1, keepdim=True) / LEVELS).clamp_min(1 / LEVELS)
        on_grid = torch.clamp(torch.round(rows / step), -LEVELS - 1, LEVELS) * step
        on_grid = on_grid.to(weight.dtype)
    return weight + (on_grid - weight).detach()
