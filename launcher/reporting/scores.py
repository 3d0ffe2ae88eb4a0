"""The scores of one configuration, wherever they come from: what a comparison compares."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.reporting import units
from launcher.reporting.units import LABELS, Unit, ValidationSet
from launcher.significance import Summary, summarize

Kind = Literal["experiment", "baseline", "submission", "logs"]


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """One seed's final evaluation."""

    val_bpb: float | None
    val_loss: float | None = None
    """Nats a token."""
    artifact_bytes: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One configuration over its seeds, or its published mean."""

    name: str
    kind: Kind
    source: str
    """File or folder that they were read from."""
    seeds: dict[int, SeedScore]
    val_bpb: float | None = None
    """The published mean; it counts where the seeds are not published."""
    val_loss: float | None = None
    validation: ValidationSet = field(default_factory=ValidationSet)
    notes: tuple[str, ...] = ()

    def by_seed(self, unit: Unit) -> dict[int, float]:
        """The scores of the seeds that have one in this unit."""
        values = {s: r.val_bpb if unit == "bpb" else r.val_loss for s, r in self.seeds.items()}
        return {seed: value for seed, value in values.items() if value is not None}

    def mean(self, unit: Unit) -> float | None:
        scores = self.by_seed(unit)
        if scores:
            return statistics.fmean(scores.values())
        return self.val_bpb if unit == "bpb" else self.val_loss

    def summary(self, unit: Unit) -> Summary | None:
        return summarize(list(self.by_seed(unit).values()))

    @property
    def bytes_per_token(self) -> float | None:
        """By the counts, else by scores in both units, else by the known validation set."""
        found = self.validation
        if found.tokens and found.bytes:
            return found.bytes / found.tokens
        pairs = [(s.val_loss, s.val_bpb) for s in self.seeds.values()]
        for loss, bpb in [*pairs, (self.val_loss, self.val_bpb)]:
            if loss is not None and bpb is not None:
                return units.bytes_per_token(loss, bpb)
        known = units.KNOWN_SETS.get(found.tokenizer or "")
        return known.bytes / known.tokens if known and known.bytes and known.tokens else None

    def plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def read_back(cls, plain: Mapping[str, Any]) -> Scores:
        """The inverse of `plain`, also after a passage through JSON."""
        values = dict(plain)
        values["seeds"] = {int(s): SeedScore(**score) for s, score in plain["seeds"].items()}
        values["validation"] = ValidationSet(**plain["validation"])
        values["notes"] = tuple(plain["notes"])
        return cls(**values)


def incomparable(one: Scores, other: Scores, unit: Unit) -> str:
    """Why two configurations cannot be compared in this unit, or nothing."""
    ours, theirs = one.validation, other.validation
    for side in (one, other):
        if side.mean(unit) is None:
            return f"{side.name} has no score in {LABELS[unit]}"
    if ours.text is None or theirs.text is None:
        unknown = one.name if ours.text is None else other.name
        return f"it is not recorded on which text {unknown} was evaluated"
    if ours.text != theirs.text:
        return (
            f"{one.name} was evaluated on {ours.text} and {other.name} on {theirs.text}: scores on "
            "different texts do not compare"
        )
    if unit == "bpb":
        return ""
    if ours.tokenizer is None or ours.tokenizer != theirs.tokenizer:
        return (
            f"{one.name} counts tokens of {ours.tokenizer or 'an unknown tokenizer'} and "
            f"{other.name} of {theirs.tokenizer or 'an unknown tokenizer'}: a nat per token is "
            "another amount for each; compare in bits per byte with --unit bpb"
        )
    if ours.tokens and theirs.tokens and ours.tokens != theirs.tokens:
        return (
            f"{one.name} scored {ours.tokens:,} tokens and {other.name} {theirs.tokens:,}: nats "
            "compare on the same tokens only; compare with --unit bpb"
        )
    return ""
