"""The arithmetic of a run: float32, or bfloat16 under autocast over float32 matrices."""

from __future__ import annotations

import torch

from golf.config import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype of this name; by default bfloat16 on CUDA and float32 on the CPU."""
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"--dtype {name!r} must be one of {', '.join(DTYPES)}")
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which a forward computes in `dtype`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
