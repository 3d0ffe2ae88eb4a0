"""GPTQ-lite: a trained model's tensors as small integers with a step per row.

1. `scheme_for` decides by name and size how a tensor is stored.
2. int6 (attention and MLP matrices): each row is clipped at a percentile of its magnitudes; of the
   candidate percentiles the one with the least mean squared error over the whole matrix is kept.
3. int8 (embeddings): each row is clipped at one percentile, practically its maximum.
4. Everything else is float16, or float32 where a large control tensor must stay exact.
5. `dequantize` gives float32 back.

Source: `mixed_quantize_int6` of pull request 414 of the parameter-golf challenge. It runs five full
passes over every matrix; here a candidate costs only the rows whose steps it changes. A row whose
largest weight stays under the floor has the same step for every percentile, which holds for nearly
all rows of the record model, so that one pass is left. The choice is the same, to the bit.

Dimensions: R rows (outputs), C columns (inputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from golf.config import QuantizeConfig
from golf.quantize.fake_quant import LEVELS as INT6_LEVELS
from golf.records import RunError

Scheme = Literal["float32", "float16", "int8", "int6"]

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

INTEGERS: tuple[Scheme, ...] = ("int8", "int6")
"""Schemes of matrices: integers and a step per row."""

SMALL_NUMEL = 65_536
"""Tensors of at most this many elements are stored as float16."""

CONTROL_PATTERNS = (
    "attn_scale",
    "mlp_scale",
    "resid_mix",
    "q_gain",
    "skip_weights",
    "smear",
    "ve_layer_scales",
    "ve_shared.scale",
)
"""Parts of names of tensors that steer the residual stream; float32 where they are large."""

INT8_LEVELS = 127

INT8_PERCENTILE = 0.9999984
"""Clips nothing in rows shorter than 600,000; the interpolation still shaves the maximum."""


class QuantizeError(RunError):
    """A tensor that cannot be quantized; the text names it."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as the artifact holds it."""

    scheme: Scheme
    values: Tensor
    """int8 for the integer schemes, else float16 or float32; of the tensor's shape."""
    steps: Tensor | None = None
    """[R] float16, for the integer schemes."""


def scheme_for(name: str, tensor: Tensor) -> Scheme:
    """How the tensor of this name and size is stored."""
    if tensor.numel() <= SMALL_NUMEL:
        return "float16"
    if any(pattern in name for pattern in CONTROL_PATTERNS):
        return "float32"
    if any(part in name for part in (".attn.", ".mlp.", ".proj.")):
        return "int6"
    return "int8"


def quantize_state(state: Mapping[str, Tensor], config: QuantizeConfig) -> dict[str, StoredTensor]:
    """Quantize every tensor of a state dict by its scheme.

    Raises:
        QuantizeError: a tensor is empty, not of floats, holds NaN or infinities, or values beyond
            what its scheme can hold.
    """
    return {name: quantize_tensor(name, tensor, config) for name, tensor in state.items()}


def quantize_tensor(name: str, tensor: Tensor, config: QuantizeConfig) -> StoredTensor:
    """Quantize one tensor; see `quantize_state`."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        kind = "empty" if tensor.numel() == 0 else f"of {tensor.dtype}, not of floats"
        raise QuantizeError(f"cannot quantize {name}: it is {kind}")
    tensor = tensor.detach().cpu().float()
    if not torch.isfinite(tensor).all():
        raise QuantizeError(f"cannot quantize {name}: it holds NaN or infinite values")
    scheme = scheme_for(name, tensor)
    if scheme in INTEGERS:
        if tensor.ndim != 2:
            shape = list(tensor.shape)
            raise QuantizeError(f"cannot quantize {name} by rows: its shape is {shape}, not [R, C]")
        values, steps = (
            quantize_int6(tensor, config.clip_percentiles, config.scale_floor)
            if scheme == "int6"
            else quantize_int8(tensor, config.scale_floor)
        )
        stored = StoredTensor(scheme, values, steps)
    else:
        stored = StoredTensor(scheme, tensor.to(getattr(torch, scheme)).contiguous())
    if not torch.isfinite(stored.values if stored.steps is None else stored.steps).all():
        largest = tensor.abs().max().item()
        raise QuantizeError(f"cannot quantize {name}: {largest:.4g} is beyond the range of float16")
    return stored


def dequantize(stored: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """The float32 tensors that an artifact stands for."""
    return {name: dequantize_tensor(tensor) for name, tensor in stored.items()}


def dequantize_tensor(stored: StoredTensor) -> Tensor:
    """One tensor as float32: its integers times the stored, rounded steps."""
    values = stored.values.float()
    return values if stored.steps is None else values * stored.steps.float()[:, None]


def quantize_int6(
    matrix: Tensor, percentiles: tuple[float, ...], scale_floor: float
) -> tuple[Tensor, Tensor]:
    """int6 values [R, C] (as int8, within +-31) and steps [R] (float16) of a float32 matrix.

    The step is rounded to float16 before the values are; of percentiles with equal error the first
    is kept.
    """
    magnitudes = matrix.abs()
    floor = scale_floor / INT6_LEVELS
    steps = _int6_steps(magnitudes.amax(dim=1), floor)
    clipped = torch.nonzero(steps > _int6_steps(torch.zeros(()), floor)).flatten()
    if len(clipped) == 0 or (len(percentiles) == 1 and percentiles[0] == 1):
        return _round_to_steps(matrix, steps.float(), INT6_LEVELS).to(torch.int8), steps
    best = _best_steps(matrix, _candidates(magnitudes, steps, clipped, percentiles, floor), clipped)
    return _round_to_steps(matrix, best.float(), INT6_LEVELS).to(torch.int8), best


def quantize_int8(matrix: Tensor, scale_floor: float) -> tuple[Tensor, Tensor]:
    """int8 values [R, C] (within +-127) and steps [R] (float16) of a float32 matrix.

    The values are rounded by the float32 step and read back by the stored one, as published.
    """
    clip = row_quantiles(matrix.abs(), (INT8_PERCENTILE,))[0]
    steps = (clip / INT8_LEVELS).clamp_min(scale_floor / INT8_LEVELS)
    clipped = torch.clamp(matrix, -clip[:, None], clip[:, None])
    return _round_to_steps(clipped, steps, INT8_LEVELS).to(torch.int8), steps.half()


def row_quantiles(magnitudes: Tensor, percentiles: tuple[float, ...]) -> Tensor:
    """[len(percentiles), R]: `torch.quantile(magnitudes, p, dim=1)` for each p, to the bit.

    Only as many of the largest elements of a row are sorted as the lowest percentile reaches down.
    """
    last = magnitudes.shape[1] - 1
    # torch.quantile computes ranks in the tensor's own precision.
    ranks = torch.tensor(percentiles, dtype=magnitudes.dtype) * last
    count = last - int(ranks.min()) + 1
    largest = magnitudes.topk(count, dim=1).values.T
    below, above = largest[last - ranks.long()], largest[last - ranks.ceil().long()]
    return torch.lerp(below, above, (ranks - ranks.floor())[:, None])


def _int6_steps(clip: Tensor, floor: float) -> Tensor:
    return (clip / INT6_LEVELS).clamp_min(floor).half()


def _round_to_steps(matrix: Tensor, steps: Tensor, levels: int) -> Tensor:
    """Whole numbers of steps, as floats; a step of 0 (no floor, a row of zeros) gives zeros."""
    divisors = torch.where(steps > 0, steps, torch.inf)
    return (matrix / divisors[:, None]).round_().clamp_(-levels, levels)


def _candidates(
    magnitudes: Tensor,
    steps: Tensor,
    clipped: Tensor,
    percentiles: tuple[float, ...],
    floor: float,
) -> list[Tensor]:
    """The different step vectors [R] of the percentiles, in their order."""
    different: list[Tensor] = []
    for clip in row_quantiles(magnitudes[clipped], percentiles):
        candidate = steps.clone()
        candidate[clipped] = _int6_steps(clip, floor)
        if not any(torch.equal(candidate, seen) for seen in different):
            different.append(candidate)
    return different


def _best_steps(matrix: Tensor, candidates: list[Tensor], clipped: Tensor) -> Tensor:
    """The first candidate of least mean squared error; they differ in the `clipped` rows only."""
    if len(candidates) == 1:
        return candidates[0]
    squares = _squared_errors(matrix, candidates[0].float())
    errors = [squares.mean().item()]
    rows = matrix[clipped]
    for candidate in candidates[1:]:
        squares[clipped] = _squared_errors(rows, candidate[clipped].float())
        errors.append(squares.mean().item())
    return candidates[errors.index(min(errors))]


def _squared_errors(matrix: Tensor, steps: Tensor) -> Tensor:
    values = _round_to_steps(matrix, steps, INT6_LEVELS)
    return values.mul_(steps[:, None]).sub_(matrix).square_()
