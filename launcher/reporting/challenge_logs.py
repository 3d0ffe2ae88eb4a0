"""Scores from the challenge's own files: a `submission.json`, or a folder of training logs.

1. Source code that a log begins with is left out.
2. Each line is held against the patterns, label by label; the later line of a label counts, and of
   the labels of a score the one that comes last in the pipeline.
3. The validation set is the one that a submission of ours states, or else is recognized by its
   number of tokens and its tokenizer's name.

Labels vary from record to record, so the patterns are data: `--patterns F.toml` adds to them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LaunchError
from launcher.reporting.scores import Scores, SeedScore
from launcher.reporting.units import KNOWN_SETS, ValidationSet, recognize

LOG_NAMES = ("train*.log", "train*.txt", "*seed*.log", "*seed*.txt")
_STAMP = r"^(?:\d+\.\d+ )?\s*"
"""Some logs begin each line with the time."""
_SCORE = r"\s+val_loss:\s*(?P<val_loss>\d+\.\d+)\s+val_bpb:\s*(?P<val_bpb>\d+\.\d+)"
_TIME = r"(?:.*\beval_time:\s*(?P<eval_ms>\d+)ms)?"
_CODE = re.compile(
    r"^(?:import |from \w+ import |def |class |async def |if __name__)", re.MULTILINE
)
_RULE = re.compile(r"^=+$")
MIN_TOKENS = 10_000_000
"""Fewer than the challenge's validation text has in any tokenizer: a trial on other data."""
MIN_RULE = 40
"""The challenge's scripts end the code that they print with a line of 100 equals signs."""


@dataclass(frozen=True, kw_only=True)
class LogPatterns:
    """Labels and regular expressions; the labels of a score in the order of the pipeline."""

    scores: tuple[str, ...] = (
        "final_int8_zlib_roundtrip_exact",
        "final_int6_roundtrip_exact",
        "quantized",
        "final_int6_sliding_window",
        "final_int6_sliding_window_exact",
        "quantized_sliding_window",
        "legal_ttt",
        "legal_ttt_exact",
        "quantized_ttt",
        "quantized_ttt_phased",
    )
    """Later ones are preferred."""
    facts: dict[str, str] = dataclasses.field(
        default_factory=lambda: {
            "seed": r"seed:\s*(\d+)$",
            "tokens": r"(?:val_loader:.*\btokens|val_tokens):\s*(\d+)$",
            "tokenizer": r".*\btokenizer_path[=:]\s*\S*?fineweb_(\d+)_bpe\.model$",
            "artifact_bytes": r"Total submission size [^:]*: (\d+) bytes$",
            "train_ms": r"stopping_early:.*\btrain_time:\s*(\d+)ms",
            "steps": r"stopping_early:.*\bstep:\s*(\d+)/\d+$",
            "eval_s": r"total_eval_time:\s*([\d.]+)s$",
        }
    )
    """One group each."""


def read_patterns(path: Path | None) -> LogPatterns:
    """The patterns, with those of a TOML file (`scores` a list, `[facts]` a table) added.

    Raises:
        LaunchError: the file is missing, or a pattern is none.
    """
    patterns = LogPatterns()
    if path is None:
        return patterns
    try:
        more = tomllib.loads(path.read_text())
        for expression in more.get("facts", {}).values():
            re.compile(expression)
    except (OSError, tomllib.TOMLDecodeError, re.error) as error:
        raise LaunchError(f"patterns {path} cannot be used: {error}") from error
    return LogPatterns(
        scores=(*patterns.scores, *more.get("scores", [])),
        facts={**patterns.facts, **more.get("facts", {})},
    )


def without_source(text: str) -> str:
    """A log without the source code that it may begin with."""
    lines = text.split("\n")
    rules = [i for i, line in enumerate(lines) if len(line) >= MIN_RULE and _RULE.match(line)]
    for index in rules:
        if _CODE.search("\n".join(lines[:index])):
            return "\n".join(lines[index + 1 :])
    return text


def read_log(path: Path, patterns: LogPatterns) -> dict[str, Any]:
    """What a log says: facts by name, and its last score as `val_loss`, `val_bpb`, `eval_ms`."""
    facts: dict[str, Any] = {}
    best, evaluation = -1, ""
    expressions = {name: re.compile(_STAMP + rest) for name, rest in patterns.facts.items()}
    labels = [re.compile(_STAMP + re.escape(name) + _SCORE + _TIME) for name in patterns.scores]
    for line in without_source(path.read_text(errors="replace")).splitlines():
        for name, expression in expressions.items():
            if match := expression.match(line):
                facts[name] = match[1]
        for rank, label in enumerate(labels):
            if rank >= best and (match := label.match(line)):
                stem = patterns.scores[rank].removesuffix("_exact")
                if stem != evaluation:  # another evaluation: the time of the last is not its own
                    facts.pop("eval_ms", None)
                facts.update({key: value for key, value in match.groupdict().items() if value})
                best, evaluation = rank, stem
    return facts


def read_logs(folder: Path, patterns: LogPatterns) -> Scores:
    """The seeds of a folder of logs.

    Raises:
        LaunchError: there is no log with a score in it.
    """
    facts = {path: read_log(path, patterns) for path in _logs(folder)}
    scored = {path: found for path, found in facts.items() if "val_bpb" in found}
    if not scored:
        labels = ", ".join(patterns.scores)
        raise LaunchError(
            f"{folder} holds no training log with a final score (known labels: {labels}); name "
            "others with --patterns F.toml"
        )
    seeds = {_seed(path, found): _seed_score(found) for path, found in scored.items()}
    missing = [path.name for path in facts if path not in scored]
    return Scores(
        name=folder.resolve().name,
        kind="logs",
        source=str(folder),
        seeds=seeds,
        validation=_validation(scored.values()),
        notes=(f"no final score in {', '.join(missing)}",) if missing else (),
    )


def read_submission(path: Path) -> Scores:
    """A `submission.json`; where it names no seeds, the logs beside it do.

    Raises:
        LaunchError: it is no JSON object, or names no score.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LaunchError(f"{path} cannot be read as a submission: {error}") from error
    if not isinstance(content, dict):
        raise LaunchError(f"{path} is no submission: it holds no JSON object")
    seeds = dict(_submitted_seeds(content))
    logs = None
    if list(_logs(path.parent)):
        logs = read_logs(path.parent, LogPatterns())
    if not seeds and logs is not None:
        seeds = logs.seeds
    if not seeds and content.get("val_bpb") is None:
        raise LaunchError(f"{path} names no val_bpb, neither its own nor a seed's")
    return Scores(
        name=path.parent.resolve().name,
        kind="submission",
        source=str(path),
        seeds=seeds,
        val_bpb=content.get("val_bpb"),
        val_loss=content.get("val_loss"),
        validation=_stated_set(content) or (logs.validation if logs else _named_set(content)),
    )


def seed_score(raw: Mapping[str, Any]) -> SeedScore | None:
    """A seed's figures under the keys that submissions use; None without a score."""
    if raw.get("val_bpb") is None:
        return None
    return SeedScore(
        val_bpb=raw["val_bpb"],
        val_loss=raw.get("val_loss"),
        artifact_bytes=raw.get("artifact_bytes", raw.get("bytes_total")),
        steps=raw.get("steps"),
        train_seconds=_seconds(raw, "train_time"),
        eval_seconds=_seconds(raw, "eval_time", "ttt_eval_time", "ttt_time"),
    )


def _logs(folder: Path) -> Iterator[Path]:
    yield from sorted({path for name in LOG_NAMES for path in folder.glob(name)})


def _seed(path: Path, facts: Mapping[str, str]) -> int:
    digits = facts.get("seed") or "".join(re.findall(r"\d+", path.stem)[-1:])
    if not digits:
        raise LaunchError(f"{path} does not say its seed; name it train_seed<N>.log")
    return int(digits)


def _seed_score(facts: Mapping[str, str]) -> SeedScore:
    milliseconds = facts.get("eval_ms")
    seconds = facts.get("eval_s")
    return SeedScore(
        val_bpb=float(facts["val_bpb"]),
        val_loss=float(facts["val_loss"]),
        artifact_bytes=int(facts["artifact_bytes"]) if "artifact_bytes" in facts else None,
        steps=int(facts["steps"]) if "steps" in facts else None,
        train_seconds=int(facts["train_ms"]) / 1000 if "train_ms" in facts else None,
        eval_seconds=float(seconds)
        if seconds
        else int(milliseconds) / 1000
        if milliseconds
        else None,
    )


def _validation(facts: Iterable[Mapping[str, str]]) -> ValidationSet:
    """By the tokens that every log names, where they are one of the challenge's sets."""
    counts = {found.get("tokens") for found in facts}
    tokens = int(next(iter(counts)) or 0) if len(counts) == 1 else 0
    if not tokens:
        return ValidationSet()
    fineweb = "fineweb" if tokens >= MIN_TOKENS else None
    return recognize(tokens) or ValidationSet(text=fineweb, tokens=tokens)


def _stated_set(content: Mapping[str, Any]) -> ValidationSet | None:
    """As `golf-launch submission` states it; the challenge's own files have no such field."""
    stated = content.get("validation")
    if not isinstance(stated, dict):
        return None
    text, tokenizer = stated.get("text"), stated.get("tokenizer")
    tokens, num_bytes = stated.get("tokens"), stated.get("bytes")
    words = all(value is None or isinstance(value, str) for value in (text, tokenizer))
    counts = all(value is None or type(value) is int for value in (tokens, num_bytes))
    if not (words and counts):
        return None
    return ValidationSet(text=text, tokenizer=tokenizer, tokens=tokens, bytes=num_bytes)


def _named_set(content: Mapping[str, Any]) -> ValidationSet:
    """By the tokenizer that a submission may name; the text is the challenge's in any case."""
    digits = re.search(r"\b(?:SP|BPE )(\d{4})\b", str(content.get("tokenizer", "")), re.IGNORECASE)
    known = KNOWN_SETS.get(f"sp{digits[1]}") if digits else None
    return known or ValidationSet(text="fineweb")


def _submitted_seeds(content: Mapping[str, Any]) -> Iterator[tuple[int, SeedScore]]:
    for key in ("seed_results", "seeds"):
        table = content.get(key)
        if not isinstance(table, dict):
            continue
        for seed, raw in table.items():
            score = seed_score(raw) if isinstance(raw, dict) else None
            if score is not None:
                yield int(seed), score
        return


def _seconds(raw: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        if raw.get(f"{name}_s") is not None:
            return float(raw[f"{name}_s"])
        if raw.get(f"{name}_ms") is not None:
            return float(raw[f"{name}_ms"]) / 1000
    return None
