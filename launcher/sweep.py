"""A sweep: settings crossed with seeds, in one experiment that is registered whole.

1. `parse_sweep` turns `ttt.lr=0.001,0.002` into combinations; several settings are crossed.
2. Each is a `Variant`: the job with those settings, and a short key that names folder and stages.
3. Variants that differ only in what evaluation reads share the training of a seed: the first of
   them trains for all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from golf.config import Job
from golf.sections import parse_override
from launcher.errors import LaunchError

MAX_VARIANTS = 64
MAX_KEY = 48
NOT_SWEPT = {
    "job": "it names the experiment",
    "container": "all jobs of an experiment run in one image",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One combination of the swept settings."""

    key: str
    """Names its folder and its stages: `lr=0.01`."""
    overrides: tuple[str, ...]
    """As on the command line: `ttt.lr=0.01`."""
    job: Job
    trained_by: str
    """Key of the variant whose trained models it evaluates, its own as a rule."""

    @property
    def trains(self) -> bool:
        return self.trained_by == self.key

    def registration(self) -> dict[str, Any]:
        """What `experiment.json` keeps of it beside its `job.toml`."""
        return {
            "key": self.key,
            "overrides": list(self.overrides),
            "trained_by": self.trained_by,
        }


def make_variants(
    combinations: Sequence[tuple[str, ...]], job_of: Callable[[tuple[str, ...]], Job]
) -> tuple[Variant, ...]:
    """A variant for each combination of overrides; `job_of` resolves its job.

    Raises:
        LaunchError: two are the same, or they cannot live on the same prepared data.
    """
    jobs = [job_of(overrides) for overrides in combinations]
    if len({repr(job) for job in jobs}) < len(jobs):
        raise LaunchError("--sweep names the same value twice in other words; name each once")
    sources = {(job.data.source, job.data.val_docs, job.model.vocab_size) for job in jobs}
    if len(sources) > 1 and any(job.data.source == "embedded" for job in jobs):
        raise LaunchError(
            "data.source, data.val_docs and model.vocab_size cannot be swept over the embedded "
            "corpus, which is prepared once for all; launch an experiment for each value"
        )
    keys = _keys(combinations)
    trainers: dict[Any, str] = {}
    return tuple(
        Variant(
            key=key,
            overrides=overrides,
            job=job,
            trained_by=trainers.setdefault(_training_of(job), key),
        )
        for key, overrides, job in zip(keys, combinations, jobs, strict=True)
    )


def _training_of(job: Job) -> str:
    """All that the train stage reads: it trains, quantizes and evaluates sequentially."""
    evaluate, budget = job.evaluate, job.budget
    return repr(
        (
            *(job.model, job.data, job.optim, job.schedule, job.averaging, job.quantize),
            *(evaluate.eval_seq_len, evaluate.batch_windows, evaluate.tail),
            *(budget.artifact_bytes, budget.train_seconds, job.resources),
        )
    )


def _keys(combinations: Sequence[tuple[str, ...]]) -> list[str]:
    """Short names that can be folders, all different; numbers where the settings are too long."""
    keys = [",".join(_short(override) for override in overrides) for overrides in combinations]
    if len({key.lower() for key in keys}) < len(keys) or max(map(len, keys)) > MAX_KEY:
        return [f"variant-{number}" for number in range(1, len(keys) + 1)]
    return keys


def _short(override: str) -> str:
    name = override.partition(".")[2]
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "-", name).strip("-")


def parse_sweep(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the settings, the last varying fastest.

    Raises:
        LaunchError: a setting has one value only or comes twice, or there are too many.
    """
    axes: list[list[str]] = []
    for text in texts:
        section, key, _ = parse_override(text)
        if section in NOT_SWEPT:
            raise LaunchError(f"--sweep {text!r}: [{section}] is not swept; {NOT_SWEPT[section]}")
        values = split_values(text.partition("=")[2])
        if len(values) < 2 or len(set(values)) < len(values):
            raise LaunchError(
                f"--sweep {text!r} must name two or more different values, as in ttt.lr=0.001,0.002"
            )
        axes.append([f"{section}.{key}={value}" for value in values])
    swept = [axis[0].partition("=")[0] for axis in axes]
    if len(set(swept)) < len(swept):
        raise LaunchError(f"--sweep names {swept[0]} twice; put all of its values into one")
    combinations = list(itertools.product(*axes))
    if len(combinations) > MAX_VARIANTS:
        raise LaunchError(f"{len(combinations)} variants are more than {MAX_VARIANTS}; sweep less")
    return combinations


def split_values(text: str) -> list[str]:
    """The values between commas; a list in brackets is one value."""
    parts: list[str] = []
    for piece in text.split(","):
        if parts and parts[-1].count("[") > parts[-1].count("]"):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return [part.strip() for part in parts if part.strip()]
