"""How one evaluation is run: what every process that takes part in it must know alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from golf.config import Job

PROTOCOLS = ("sequential", "sliding", "ttt")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How one evaluation is run."""

    job: Job
    protocol: str
    out: Path
    dtype: torch.dtype
    save_nll: bool = False
    resume: bool = False
    compiled: bool = False
    attention: str | None = None
    """Name of the attention backend; None takes the best there is."""
