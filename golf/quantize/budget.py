"""What an artifact weighs, against the challenge's limit of 16,000,000 bytes for model and code.

Bytes are decimal and counted on disk: the compressed model as one file, and the single Python file
that ships (`golf.bundle`).
"""

from __future__ import annotations

from dataclasses import dataclass

from golf.records import RunError

NUM_HEAVIEST = 5
"""Tensors named when a budget is exceeded."""


class BudgetError(RunError):
    """An artifact over its budget; the text says by how much and what weighs most."""


@dataclass(frozen=True)
class ArtifactReport:
    """Bytes of an artifact's file, all of them, by tensor and by part of the model."""

    model_bytes: int
    tensor_bytes: dict[str, int]
    """Compressed bytes by tensor. Small tensors share a frame and take part by their plain size;
    what is missing to `model_bytes` is the header."""

    @property
    def group_bytes(self) -> dict[str, int]:
        """Compressed bytes of `attention`, `mlp`, `embeddings` and `other` (the header too)."""
        groups = {"attention": 0, "mlp": 0, "embeddings": 0, "other": 0}
        for name, size in self.tensor_bytes.items():
            groups[group_of(name)] += size
        groups["other"] += self.model_bytes - sum(groups.values())
        return groups

    def heaviest(self, count: int = NUM_HEAVIEST) -> list[tuple[str, int]]:
        """Names and bytes of the tensors that weigh most, the heaviest first."""
        return sorted(self.tensor_bytes.items(), key=lambda item: (-item[1], item[0]))[:count]


def group_of(name: str) -> str:
    """The part of the model that a tensor belongs to."""
    if ".attn." in name:
        return "attention"
    if ".mlp." in name:
        return "mlp"
    return "embeddings" if name.endswith(("emb.weight", "embed.weight")) else "other"


def check_budget(report: ArtifactReport, code_bytes: int, budget_bytes: int) -> None:
    """Hold an artifact and the code that ships with it to their budget.

    Raises:
        BudgetError: model and code together exceed `budget_bytes`.
    """
    total_bytes = report.model_bytes + code_bytes
    over = total_bytes - budget_bytes
    if over <= 0:
        return
    groups = ", ".join(f"{name} {size:,}" for name, size in report.group_bytes.items())
    tensors = ", ".join(f"{name} {size:,}" for name, size in report.heaviest())
    raise BudgetError(
        f"the artifact is {over:,} bytes over its budget: model {report.model_bytes:,} + code "
        f"{code_bytes:,} = {total_bytes:,} bytes, allowed {budget_bytes:,}. "
        f"By part: {groups}. Heaviest tensors: {tensors}. A smaller model.mlp_mult, "
        "model.num_layers or model.bigram_vocab_size, or a larger quantize.scale_floor, saves bytes"
    )
