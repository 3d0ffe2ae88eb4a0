"""All weights of a model in one buffer a dtype, all gradients in another.

A step of training or adaptation touches 121 tensors; over flat buffers its all-reduce, clip,
update, average and digest are one operation each instead of 121 (on a GPU that is what they cost).
The model's parameters become views of the buffers and stay ordinary parameters otherwise.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
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


PIECE = 1 << 18
"""Words hashed at a time; bounds the memory of the 64-bit products."""


def multilinear_sums(values: Tensor) -> tuple[int, int]:
    """Two independent 64-bit hashes of the bits of `values`, float32 or bfloat16 [n].

    A piece's hash is the sum of each word times a pseudo-random multiplier of its place; the hashes
    of the pieces are summed in the same way.
    """
    words = values.view({2: torch.int16, 4: torch.int32}[values.element_size()])
    lanes = _multipliers(words.device)
    pieces: tuple[list[Tensor], ...] = ([], [])
    for part in words.split(PIECE):
        wide = part.long()
        for sums, multipliers in zip(pieces, lanes, strict=True):
            sums.append((wide * multipliers[: part.numel()]).sum())
    first, second = (
        int((torch.stack(sums) * multipliers[: len(sums)]).sum())
        for sums, multipliers in zip(pieces, lanes, strict=True)
    )
    return first, second


@functools.cache
def _multipliers(device: torch.device) -> tuple[Tensor, Tensor]:
    """Two tables of odd multipliers, int64 [PIECE] each: part of the digest's definition."""
    generator = np.random.Generator(np.random.PCG64(0x601F))
    draws = generator.integers(0, 1 << 63, size=(2, PIECE), dtype=np.int64) * 2 + 1
    with torch.inference_mode(False):
        first, second = torch.from_numpy(draws).to(device)
    return first, second
