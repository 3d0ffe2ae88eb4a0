"""Nats a token and bits a byte, the validation sets on which they were measured, and margins.

1 nat/token is 1 / (ln 2 x bytes per token) BPB, so it is another amount for another tokenizer.
BPB compares across tokenizers on the same text; nats only on the same tokens.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from launcher.errors import LaunchError

Unit = Literal["bpb", "nats"]
UNITS: tuple[Unit, ...] = ("bpb", "nats")
LABELS: dict[str, str] = {"bpb": "BPB", "nats": "nats/token"}
_UNIT_WORDS: dict[str, Unit] = {
    "nats": "nats",
    "nat": "nats",
    "nats/token": "nats",
    "bpb": "bpb",
    "bits/byte": "bpb",
}


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """What a score was measured on; what is not known is None."""

    text: str | None = None
    """Names the text, so that BPB compare."""
    tokenizer: str | None = None
    tokens: int | None = None
    bytes: int | None = None


KNOWN_SETS = {
    "sp1024": ValidationSet(
        text="fineweb", tokenizer="sp1024", tokens=62_021_632, bytes=151_080_363
    ),
    "sp8192": ValidationSet(
        text="fineweb", tokenizer="sp8192", tokens=40_540_160, bytes=151_078_222
    ),
    "sp8192-caseops": ValidationSet(text="fineweb", tokenizer="sp8192-caseops", tokens=47_851_520),
}
"""The challenge's FineWeb validation set, cut to whole windows of 2,048 tokens. The bytes are those
that agree with every pair of val_loss and val_bpb, to 8 digits, of sequential evaluations in the
logs of pull request 414 and of the record of 2026-04-06."""


MAX_TAIL = 8192
"""Tokens by which other windows, or a tail that is kept, change a set."""


def bytes_per_token(val_loss: float, val_bpb: float) -> float:
    """Of one evaluation, from its score in both units."""
    return val_loss / (math.log(2) * val_bpb)


def to_bpb(nats: float, bytes_per_token: float) -> float:
    return nats / (math.log(2) * bytes_per_token)


def to_nats(bpb: float, bytes_per_token: float) -> float:
    return bpb * math.log(2) * bytes_per_token


def recognize(tokens: int | None) -> ValidationSet | None:
    """The known set of so many tokens."""
    return next((known for known in KNOWN_SETS.values() if known.tokens == tokens), None)


def resembles(tokens: int, num_bytes: int) -> ValidationSet | None:
    """The known set of which this is another cut: some windows more or less of the same text."""
    for known in KNOWN_SETS.values():
        if known.tokens is None or known.bytes is None or abs(tokens - known.tokens) > MAX_TAIL:
            continue
        if math.isclose(num_bytes / tokens, known.bytes / known.tokens, rel_tol=1e-4):
            return known
    return None


def totals_problem(tokens: int | None, num_bytes: int | None) -> str:
    """What is wrong with the bytes that were counted on a known set, or nothing."""
    known = recognize(tokens)
    if known is None or known.bytes is None or num_bytes in (None, 0, known.bytes):
        return ""
    return (
        f"{num_bytes:,} bytes were counted for the {known.tokens:,} tokens of {known.text} with "
        f"{known.tokenizer}, which are {known.bytes:,}: BPB is wrong by a factor of "
        f"{known.bytes / num_bytes:.5f}; check the tokenizer"
    )


@dataclass(frozen=True, kw_only=True)
class Margin:
    """By how much a result must be better."""

    amount: float
    unit: Unit

    def __str__(self) -> str:
        return f"{self.amount:g} {LABELS[self.unit]}"

    def within(self, unit: Unit, bytes_per_token: float | None) -> float:
        """The margin in `unit`.

        Raises:
            LaunchError: it takes the bytes per token, which are not known.
        """
        if unit == self.unit or self.amount == 0:
            return self.amount
        if bytes_per_token is None:
            raise LaunchError(
                f"a margin of {self} cannot be told in {LABELS[unit]}: the run's bytes per token "
                f"are not known; give it as --margin 0.002{unit}"
            )
        convert = to_bpb if unit == "bpb" else to_nats
        return convert(self.amount, bytes_per_token)


def parse_margin(text: str) -> Margin:
    """`0.005nats`, `0.002 bpb`.

    Raises:
        LaunchError: the unit or the number is missing, or the margin negative.
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([a-zA-Z/]*)\s*", text)
    unit = _UNIT_WORDS.get(match[2].lower()) if match else None
    try:
        amount = float(match[1]) if match else math.nan
    except ValueError:
        amount = math.nan
    if unit is None or not 0 <= amount < math.inf:
        raise LaunchError(
            f"--margin {text!r} must be an amount with its unit, as in 0.005nats (a token) or "
            "0.002bpb"
        )
    return Margin(amount=amount, unit=unit)
