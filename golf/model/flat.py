"""All weights of a model in one buffer a dtype, all gradients in another.

A step of training or adaptation touches 121 tensors; over flat buffers its all-reduce, clip, update,
average and digest are one operation each instead of 121 (and on a GPU that is what they cost).
The model's parameters become views of the buffers and stay ordinary parameters otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


class FlatParameters:
    """Owns the memory of a model's parameters and of their gradients.

    Frozen parameters, chosen by name, receive no gradient: theirs stays zero.
    """

    def __init__(
        self, model: nn.Module, frozen: Callable[[str], bool] = lambda name: False
    ) -> None:
        named = dict(sorted(model.named_parameters()))
        for name, parameter in named.items():
            parameter.requires_grad_(not frozen(name))
        dtypes = sorted({p.dtype for p in named.values()}, key=str)
        self.groups = [_FlatGroup(named, dtype) for dtype in dtypes]

    @property
    def values(self) -> list[Tensor]:
        """All weights, one flat tensor a dtype."""
        return [group.values for group in self.groups]

    @property
    def gradients(self) -> list[Tensor]:
        """All gradients, laid out like `values`."""
        return [group.gradients for group in self.groups]

    def zero_gradients(self) -> None:
        for gradient in self.gradients:
            gradient.zero_()

    def clip_gradients(self, max_norm: float) -> None:
        """Scale all gradients so that their global norm is at most `max_norm`; 0 does nothing."""
        if max_norm > 0:
            norms = torch.stack([torch.linalg.vector_norm(g.float()) for g in self.gradients])
            scale = (max_norm / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1.0)
            for gradient in self.gradients:
                gradient.mul_(scale)

    def like_values(self) -> list[Tensor]:
        """Float32 copies of `values`, for averages."""
        return [v.float().clone() for v in self.values]

    def unflatten(self, flat: list[Tensor]) -> dict[str, Tensor]:
        """Views of tensors laid out like `values`, by parameter name and in the model's shapes."""
        return {
            name: view
            for group, buffer in zip(self.groups, flat, strict=True)
            for name, view in group.views(buffer)
        }

    def digest(self) -> str:
        """Hex digest of names, shapes and every bit of the weights; equal weights, equal digest.

        Each buffer is hashed where it lies, by two 64-bit multilinear sums (Lemire and Kaser,
        "Strongly universal string hashing is fast", 2014), which need no order of summation and so
        run at memory speed on a GPU; the sums are bound to names and shapes by SHA-256.
        """
        digest = hashlib.sha256()
        for group in self.groups:
            layout = [(name, list(p.shape)) for name, p in group.members.items()]
            digest.update(repr((str(group.values.dtype), layout)).encode())
            digest.update(repr(multilinear_sums(group.values)).encode())
        return digest.hexdigest()


class _FlatGroup:
    def __init__(self, named: dict[str, nn.Parameter], dtype: torch.dtype) -> None:
        self.members = {name: p for name, p in named.items() if p.dtype == dtype}
        self.values = torch.cat([p.detach().flatten() for p in self.members.values()])
        self.gradients = torch.zeros_like(self.values)
        for (name, value), (_, gradient) in zip(
            self.views(self.values), self.views(self.gradients), strict=True
        ):
            parameter = self.members[name]
            parameter.data = value
            parameter.grad = gradient if parameter.requires_grad else None

    def views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Named views of a tensor laid out like `values`."""
        sizes = [p.numel() for p in self.members.values()]
        for (name, parameter), piece in zip(self.members.items(), flat.split(sizes), strict=True):
            yield name, piece.view(parameter.shape)


def multilinear_sums(values: Tensor) -> tuple[int, int]:
    """Two independent sums of word times pseudo-random multiplier, modulo 2^64.

    values float32 or bfloat16 [n].
    """
    words = values.view({2: torch.int16, 4: torch.int32}[values.element_size()])
    sums = [0, 0]
    piece = 1 << 22  # bounds the memory of the 64-bit products
    for start in range(0, words.numel(), piece):
        part = words[start : start + piece].long()
        index = torch.arange(start + 1, start + 1 + part.numel(), device=part.device)
        for lane, key in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)):
            total = int((part * _multipliers(index, key)).sum())
            sums[lane] = (sums[lane] + total) % (1 << 64)
    return sums[0], sums[1]


def _multipliers(index: Tensor, key: int) -> Tensor:
    """splitmix64 of each index: int64 [n], wrapping around."""
    signed = key - (1 << 64) if key >= 1 << 63 else key
    x = index * signed
    x = (x ^ (x >> 30)) * -0x40A7B892E31B1A47
    x = (x ^ (x >> 27)) * -0x6B2FB644ECCEEE15
    return x ^ (x >> 31)
