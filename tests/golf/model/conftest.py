"""The golden model, with its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_gpt import Golden, fresh_gpt

from golf.config import job_from_sections
from golf.model.gpt import GPT


@pytest.fixture(scope="session")
def golden(golden_dir: Path) -> Golden:
    """Reads a golden file by its name."""

    def read(name: str) -> dict[str, Any]:
        with np.load(golden_dir / f"{name}.npz") as file:
            return {
                key: torch.from_numpy(value) if value.dtype.kind in "fiu" else str(value)
                for key, value in file.items()
            }

    return read


@pytest.fixture
def golden_gpt(golden: Golden) -> GPT:
    """The five-layer model of `small_forward`, with the weights given there."""
    data = golden("small_forward")
    gpt = fresh_gpt(job_from_sections({"model": json.loads(data["config"])}).model)
    gpt.load_state_dict({k.removeprefix("w/"): v for k, v in data.items() if k.startswith("w/")})
    return gpt
