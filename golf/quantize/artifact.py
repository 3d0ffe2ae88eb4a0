"""The artifact: a quantized model in one file that says by itself what it is.

1. `write_artifact` quantizes a state dict, encodes it with the model's settings and writes the file
   whole or not at all; it reports the bytes by tensor.
2. `read_artifact` checks and decodes a file, executing nothing, and gives float32 weights back by
   the checkpoint's names.
3. `check_budget` holds the report to the challenge's limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from golf.config import ConfigError, ModelConfig, QuantizeConfig, job_from_sections
from golf.quantize.budget import ArtifactReport, BudgetError, check_budget
from golf.quantize.container import MAGIC, decode, encode
from golf.quantize.gptq_lite import dequantize, quantize_state
from golf.quantize.header import ArtifactError
from golf.records import replace_file

__all__ = [
    "MAGIC",
    "Artifact",
    "ArtifactError",
    "ArtifactReport",
    "BudgetError",
    "check_budget",
    "read_artifact",
    "write_artifact",
]


@dataclass(frozen=True)
class Artifact:
    """What an artifact's file holds."""

    state: dict[str, Tensor]
    """float32, by the checkpoint's names."""
    model: ModelConfig
    quantize: QuantizeConfig
    """How the weights were quantized and compressed."""
    report: ArtifactReport


def write_artifact(
    path: Path, state: Mapping[str, Tensor], model: ModelConfig, quantize: QuantizeConfig
) -> ArtifactReport:
    """Quantize `state` and write it; equal input gives equal bytes.

    Raises:
        QuantizeError: a tensor that cannot be quantized (empty, NaN, out of range).
    """
    settings = {"model": dataclasses.asdict(model), "quantize": dataclasses.asdict(quantize)}
    content, header = encode(quantize_state(state, quantize), settings, quantize.zstd_level)
    with replace_file(path) as temporary:
        temporary.write_bytes(content)
    return ArtifactReport(len(content), header.tensor_bytes())


def read_artifact(path: Path) -> Artifact:
    """Read what `write_artifact` wrote.

    Raises:
        ArtifactError: no such file, or not an artifact, truncated, damaged, or claiming sizes that
            it does not hold or that no model has.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    try:
        stored, header = decode(content)
        if header.settings.keys() != {"model", "quantize"}:
            raise ArtifactError("its header lacks the settings of the model or names foreign ones")
        job = job_from_sections(header.settings, where="its header")
    except (ArtifactError, ConfigError) as error:
        raise ArtifactError(f"{path} cannot be loaded: {error}") from error
    report = ArtifactReport(len(content), header.tensor_bytes())
    return Artifact(dequantize(stored), job.model, job.quantize, report)
