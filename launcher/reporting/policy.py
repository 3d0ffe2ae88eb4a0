"""What will count as better, fixed before the first submission.

The policy is written into the experiment's registry together with the baseline's scores, so that
neither the choice of the test nor a baseline that changes later can follow the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from launcher.errors import LaunchError
from launcher.reporting.scores import Scores
from launcher.reporting.units import LABELS, UNITS, Margin, Unit
from launcher.significance import TESTS, TestName

RULE_MARGIN = Margin(amount=0.005, unit="nats")
"""The challenge: a record beats the last one by at least 0.005 nats a token ..."""
RULE_ALPHA = 0.01
"""... at p < 0.01."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a comparison is judged."""

    test: TestName = "welch"
    margin: Margin = RULE_MARGIN
    alpha: float = RULE_ALPHA
    unit: Unit = "bpb"
    """In which the test is made; BPB compare across tokenizers."""
    baseline: Scores | None = None

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise LaunchError(f"--test {self.test!r} must be one of {', '.join(TESTS)}")
        if self.unit not in UNITS:
            raise LaunchError(f"--unit {self.unit!r} must be one of {', '.join(UNITS)}")
        if not 0 < self.alpha < 1:
            raise LaunchError(f"--alpha {self.alpha} must lie between 0 and 1, as in 0.01")

    def __str__(self) -> str:
        test = "paired" if self.test == "paired" else self.test.replace("welch", "Welch")
        return (
            f"one-sided {test} test in {LABELS[self.unit]}, margin {self.margin}, "
            f"alpha {self.alpha:g}"
        )

    def plain(self) -> dict[str, Any]:
        """For the registry; a test's name, unit and figures, and the baseline's scores."""
        return asdict(self)

    @classmethod
    def read_back(cls, plain: Mapping[str, Any]) -> Policy:
        baseline = plain["baseline"]
        return cls(
            test=plain["test"],
            margin=Margin(**plain["margin"]),
            alpha=plain["alpha"],
            unit=plain["unit"],
            baseline=None if baseline is None else Scores.read_back(baseline),
        )
