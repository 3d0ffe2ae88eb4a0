"""A sweep: settings crossed with seeds, registered whole, and ranked with a correction for luck.

1. `parse_sweep` turns `ttt.lr=0.001,0.002` into variants; several are crossed.
2. Each variant is an experiment like any other, in a folder beside the others.
3. The sweep's own file names all of them and the policy, and is written before any job is
   submitted, so that a variant which did badly cannot be left out.
4. `rank` tests every variant against the baseline, or else against the first variant; Holm's
   correction counts all of them, those without a verdict too.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golf.records import read_json, write_json
from golf.sections import parse_override
from launcher.errors import LaunchError
from launcher.reporting.policy import Policy

SCHEMA = 1
SUFFIX = ".sweep.json"
MAX_VARIANTS = 64


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One combination of the swept settings."""

    overrides: tuple[str, ...]
    experiment: str
    """Name of its folder."""

    @property
    def label(self) -> str:
        return " ".join(self.overrides)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was registered before the first submission."""

    name: str
    created_at: float
    policy: Policy
    variants: tuple[Variant, ...]

    def path(self, runs: Path) -> Path:
        return runs / f"{self.name}{SUFFIX}"

    def write(self, runs: Path) -> None:
        plain = {
            "schema": SCHEMA,
            "name": self.name,
            "created_at": self.created_at,
            "policy": self.policy.plain(),
            "variants": [dataclasses.asdict(variant) for variant in self.variants],
        }
        write_json(self.path(runs), plain)


def parse_sweep(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the settings, the last varying fastest.

    Raises:
        LaunchError: a setting has one value only or comes twice, or there are too many.
    """
    axes: list[list[str]] = []
    for text in texts:
        section, key, _ = parse_override(text)
        values = split_values(text.partition("=")[2])
        if len(values) < 2 or len(set(values)) < len(values):
            raise LaunchError(
                f"--sweep {text!r} must name two or more different values, as in ttt.lr=0.001,0.002"
            )
        axes.append([f"{section}.{key}={value}" for value in values])
    swept = [axis[0].partition("=")[0] for axis in axes]
    if len(set(swept)) < len(swept):
        raise LaunchError(f"--sweep names {swept[0]} twice; put all of its values into one")
    variants = list(itertools.product(*axes))
    if len(variants) > MAX_VARIANTS:
        raise LaunchError(f"{len(variants)} variants are more than {MAX_VARIANTS}; sweep less")
    return variants


def split_values(text: str) -> list[str]:
    """The values between commas; a list in brackets is one value."""
    parts: list[str] = []
    for piece in text.split(","):
        if parts and parts[-1].count("[") > parts[-1].count("]"):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return [part.strip() for part in parts if part.strip()]


def find_sweep(runs: Path, name: str | None) -> Sweep:
    """A sweep by name or unambiguous part of it; without one the newest.

    Raises:
        LaunchError: none matches, or several do.
    """
    found = [_read(path) for path in sorted(runs.glob(f"*{SUFFIX}"))]
    matches = [sweep for sweep in found if name is None or name in sweep.name]
    matches.sort(key=lambda sweep: sweep.created_at)
    if not matches:
        raise LaunchError(
            f"there is no sweep{f' {name!r}' if name else ''} in {runs}/; start one, as in "
            "golf-launch smoke --seeds 1337,42,7 --sweep ttt.lr=0.01,0.02"
        )
    if name is not None and len(matches) > 1:
        raise LaunchError(f"{name!r} fits several: {', '.join(s.name for s in matches)}")
    return matches[-1]


def _read(path: Path) -> Sweep:
    plain: dict[str, Any] = read_json(path) or {}
    return Sweep(
        name=plain["name"],
        created_at=plain["created_at"],
        policy=Policy.read_back(plain["policy"]),
        variants=tuple(
            Variant(overrides=tuple(v["overrides"]), experiment=v["experiment"])
            for v in plain["variants"]
        ),
    )
