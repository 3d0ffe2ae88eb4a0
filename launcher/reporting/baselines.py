"""The published records that ship with the package, by name or pull request.

A record is named by its folder in the challenge (`2026-04-09_A2_Muon097_3Seed`), an unambiguous
part of that, or its pull request where known (`pr1514`).
"""

from __future__ import annotations

import difflib
import functools
import re
import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import LaunchError
from launcher.reporting.scores import Scores, SeedScore
from launcher.reporting.units import KNOWN_SETS, ValidationSet
from launcher.spec import jobs_folder

FILE = "baselines.toml"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A published record."""

    name: str
    title: str
    date: str
    pull_request: int | None
    scores: Scores


@functools.cache
def baselines() -> tuple[Baseline, ...]:
    """All of them, the oldest first."""
    path = jobs_folder() / FILE
    records = tomllib.loads(path.read_text())["record"]
    return tuple(_baseline(record, str(path)) for record in records)


def find_baseline(name: str) -> Baseline | None:
    """The record of this name, pull request or unambiguous part of a name.

    Raises:
        LaunchError: several records fit.
    """
    wanted = name.strip().lower()
    number = re.fullmatch(r"(?:pr)?[ #-]*(\d+)", wanted)
    if number:
        return next((b for b in baselines() if b.pull_request == int(number[1])), None)
    exact = [b for b in baselines() if b.name.lower() == wanted]
    parts = [b for b in baselines() if len(wanted) >= 4 and wanted in b.name.lower()]
    matches = exact or parts
    if len(matches) > 1:
        raise LaunchError(f"{name!r} fits several records: {', '.join(b.name for b in matches)}")
    return matches[0] if matches else None


def nearest(name: str) -> str:
    """Names of records near an unknown one, for an error's text."""
    known = [b.name for b in baselines()] + [f"pr{b.pull_request}" for b in with_pull_request()]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if near:
        return f"did you mean {near[0]}?"
    return "records go by " + ", ".join(f"pr{b.pull_request}" for b in with_pull_request()) + " …"


def with_pull_request() -> tuple[Baseline, ...]:
    return tuple(b for b in baselines() if b.pull_request is not None)


@functools.cache
def median_std_bpb() -> float:
    """Median over the records of the standard deviation of their seeds, in BPB."""
    seeds = [list(b.scores.by_seed("bpb").values()) for b in baselines()]
    return statistics.median(statistics.stdev(scores) for scores in seeds if len(scores) > 1)


def _baseline(record: Mapping[str, Any], source: str) -> Baseline:
    name, number = record["name"], record.get("pull_request")
    seeds = {
        entry["seed"]: SeedScore(**{key: value for key, value in entry.items() if key != "seed"})
        for entry in record.get("seeds", ())
    }
    tokenizer = record.get("tokenizer")
    unknown = ValidationSet(text="fineweb", tokenizer=tokenizer)
    return Baseline(
        name=name,
        title=record.get("title", name),
        date=str(record.get("date", "")),
        pull_request=number,
        scores=Scores(
            name=f"PR {number}" if number else name,
            kind="baseline",
            source=source,
            seeds=seeds,
            val_bpb=record.get("val_bpb"),
            val_loss=record.get("val_loss"),
            validation=KNOWN_SETS.get(tokenizer or "", unknown),
        ),
    )
