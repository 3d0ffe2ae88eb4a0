"""Muon: momentum, orthogonalised by Newton-Schulz, for the matrices of the blocks.

1. A Nesterov momentum of the gradient.
2. Five quintic Newton-Schulz steps in bfloat16 push its singular values towards 1.
3. Decoupled weight decay, then the step, scaled for tall matrices.

Matrices of one shape are stacked and orthogonalised together.
Source: Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon), as in pull request 414.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's quintic, chosen for the steepest slope at 0."""


def orthogonalise(G: Tensor) -> Tensor:
    """Roughly U V^T of each matrix U S V^T; G [n, rows, cols] -> bfloat16 of the same shape."""
    a, b, c = NEWTON_SCHULZ
    X = G.bfloat16()
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = X.size(-2) > X.size(-1)
    if tall:
        X = X.mT
    for _ in range(NEWTON_SCHULZ_STEPS):
        A = _matmul(X, X.mT)
        B = b * A + _matmul(c * A, A)
        X = a * X + _matmul(B, X)
    out: Tensor = X.mT if tall else X
    return out


def _matmul(A: Tensor, B: Tensor) -> Tensor:
    """A bfloat16 product accumulated in float32.

    CPUs without bfloat16 instructions take 30 times as long for it as for widening, multiplying in
    float32 and rounding once, which is the same arithmetic.
    """
    if A.device.type == "cpu":
        return (A.float() @ B.float()).bfloat16()
    return A @ B


class Muon:
    """Updates 2-D parameters in place."""

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.weight_decay = weight_decay
        self.momenta: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in parameters}
        self.by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in self.momenta:
            self.by_shape[p.shape].append(p)

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """One step from the gradients at hand."""
        for shape, parameters in self.by_shape.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            assert len(gradients) == len(parameters)
            buffers = [self.momenta[p] for p in parameters]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, gradients)
            nesterov = torch._foreach_add(gradients, buffers, alpha=momentum)
            scale = math.sqrt(max(1.0, shape[0] / shape[1]))
            updates = (orthogonalise(torch.stack(nesterov)) * scale).to(parameters[0].dtype)
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
            torch._foreach_add_(parameters, list(updates.unbind()), alpha=-lr)
