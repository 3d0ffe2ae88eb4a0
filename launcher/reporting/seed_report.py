"""One registered seed as its stages' files tell it; what it has not reached is None."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from golf.records import EvalPaths, read_json, read_lines
from launcher.attempts import read_attempts
from launcher.experiment import Runs
from launcher.paths import RunPaths
from launcher.reporting.scores import SeedScore
from launcher.reporting.units import ValidationSet, recognize, resembles
from launcher.states import StageStatus, State, run_state
from launcher.tails import tail_lines

COLUMNS = {
    "post_ema": "post-EMA",
    "round_trip": "round trip",
    "sliding": "sliding",
    "ttt": "TTT",
}
"""The evaluations of a seed in the order of the pipeline, and what people call them."""
FINAL = "ttt"
"""The evaluation that counts."""
VIOLATED_EXIT = 3


@dataclass(frozen=True, kw_only=True)
class Score:
    """One evaluation over the whole validation set."""

    val_loss: float
    """Nats a token."""
    val_bpb: float
    """Bits a byte."""


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """One registered seed."""

    seed: int
    state: State
    reason: str
    log: str
    exit_code: int | None
    scores: dict[str, Score | None]
    steps: int | None
    train_seconds: float | None
    """Training steps, as the wall-clock budget counts them."""
    last_step_began_s: float | None
    """On the same clock; as in the challenge, the step that uses up the time is finished."""
    quantize_seconds: float | None
    """The whole command, start-up included."""
    eval_seconds: float | None
    """The TTT evaluation."""
    model_bytes: int | None
    code_bytes: int | None
    total_bytes: int | None
    group_bytes: dict[str, int]
    """Compressed bytes by part of the model."""
    validation: ValidationSet
    """What the TTT evaluation scored."""
    coverage: Literal["exactly once", "violated", "not evaluated"]
    """Whether the ledger's scored ranges follow each other from the first token to the last."""
    ledger: Literal["verified", "violated", "not verified"]
    schedule: str | None
    attention: str | None
    device: str | None
    num_devices: int | None
    """Ranks of the TTT evaluation."""
    recoveries: int
    """Groups of workers that the TTT evaluation lost and survived."""
    host: str | None
    images: tuple[str, ...]
    """What the container images of its stages say of themselves, each once; none outside."""
    attempts: dict[str, int]
    """Starts of each stage's jobs, by kind: more than one after a preemption, a lost node, a
    resume."""

    def final_score(self) -> SeedScore | None:
        score = self.scores[FINAL]
        if score is None:
            return None
        return SeedScore(
            val_bpb=score.val_bpb,
            val_loss=score.val_loss,
            artifact_bytes=self.total_bytes,
            steps=self.steps,
            train_seconds=self.train_seconds,
            eval_seconds=self.eval_seconds,
        )


def read_seed(runs: Runs, seed: int, statuses: dict[str, StageStatus]) -> SeedReport:
    """Read one seed's files as they stand."""
    paths, stages = runs.paths, runs.stages_of(seed)
    current = next((s for s in stages if statuses[s.key].state is not State.DONE), stages[-1])
    last, first = statuses[stages[-1].key], statuses[stages[0].key]
    train = _result(paths.train(seed).result)
    evaluation = paths.evaluation(seed, FINAL)
    ttt = _result(evaluation.result)
    sizes = _sizes(paths, seed)
    raw_status = _result(runs.whole.stage(stages[-1].key).status)
    return SeedReport(
        seed=seed,
        state=run_state(statuses[stage.key].state for stage in stages),
        reason=statuses[current.key].reason,
        log=str(runs.whole.stage(current.key).log),
        exit_code=statuses[current.key].exit_code,
        scores={
            "post_ema": _score(train),
            "round_trip": _score(_result(paths.round_trip(seed).result)),
            "sliding": _score(_result(paths.evaluation(seed, "sliding").result)),
            "ttt": _score(ttt),
        },
        steps=train.get("steps"),
        train_seconds=train.get("train_seconds"),
        last_step_began_s=_last_step_began_s(paths.train(seed).metrics) if train else None,
        quantize_seconds=_command_seconds(first, "quantize"),
        eval_seconds=ttt.get("seconds"),
        model_bytes=sizes.get("model_bytes"),
        code_bytes=sizes.get("code_bytes"),
        total_bytes=sizes.get("total_bytes"),
        group_bytes=sizes.get("group_bytes", {}),
        validation=_validation(evaluation, ttt),
        coverage=_coverage(evaluation, ttt),
        ledger=_ledger(last),
        schedule=ttt.get("schedule"),
        attention=ttt.get("attention") or train.get("attention"),
        device=train.get("device"),
        num_devices=_num_devices(ttt),
        recoveries=len(ttt.get("recoveries", ())),
        host=raw_status.get("host"),
        attempts={
            stage.kind: max(
                statuses[stage.key].attempt, len(read_attempts(runs.whole.stage(stage.key)))
            )
            for stage in stages
        },
        images=_images(_result(runs.whole.stage(stage.key).status) for stage in stages),
    )


def _images(statuses: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s["image"] for s in statuses if s.get("image")))


def _num_devices(result: dict[str, Any]) -> int | None:
    """Ranks that adapt, and beside them those that only score."""
    adapting: int | None = result.get("world_size")
    return None if adapting is None else adapting + int(result.get("num_scorers", 0))


def _result(path: Path) -> dict[str, Any]:
    return read_json(path) or {}


def _sizes(paths: RunPaths, seed: int) -> dict[str, Any]:
    """As `golf quantize` counted them; a job that shares a model has code of its own bytes."""
    sizes = _result(paths.artifact_sizes(seed))
    if not sizes or paths.training is None:
        return sizes
    code_bytes = paths.script.stat().st_size
    return {
        **sizes,
        "code_bytes": code_bytes,
        "total_bytes": sizes["model_bytes"] + code_bytes,
    }


def _last_step_began_s(metrics: Path) -> float:
    lines = tail_lines(metrics, 2)
    return float(json.loads(lines[0])["elapsed_ms"]) / 1000 if len(lines) == 2 else 0.0


def _score(result: dict[str, Any]) -> Score | None:
    if result.get("val_loss") is None or result.get("val_bpb") is None:
        return None
    return Score(val_loss=result["val_loss"], val_bpb=result["val_bpb"])


def _command_seconds(status: StageStatus, name: str) -> float | None:
    return next((c.seconds for c in reversed(status.commands) if c.name == name), None)


def _ledger(status: StageStatus) -> Literal["verified", "violated", "not verified"]:
    codes = [record.exit_code for record in status.commands if record.name == "verify"]
    if codes[-1:] == [0]:
        return "verified"
    return "violated" if codes[-1:] == [VIOLATED_EXIT] else "not verified"


def _validation(evaluation: EvalPaths, result: dict[str, Any]) -> ValidationSet:
    """A known set by its tokens; another is named by its bytes, and its tokenizer by digest."""
    tokens, num_bytes = result.get("tokens"), result.get("bytes")
    known = recognize(tokens)
    if known is None and tokens and num_bytes:
        known = resembles(tokens, num_bytes)
    if known is not None:
        return ValidationSet(
            text=known.text, tokenizer=known.tokenizer, tokens=tokens, bytes=num_bytes
        )
    identity = _result(evaluation.plan).get("validation", {})
    digest = identity.get("tokenizer_sha256")
    return ValidationSet(
        text=f"a text of {num_bytes:,} bytes" if num_bytes else None,
        tokenizer=f"tokenizer {digest[:12]}" if digest else None,
        tokens=tokens,
        bytes=num_bytes,
    )


def _coverage(
    evaluation: EvalPaths, result: dict[str, Any]
) -> Literal["exactly once", "violated", "not evaluated"]:
    if not result:
        return "not evaluated"
    scores = [line for line in read_lines(evaluation.ledger) if line["kind"] == "score"]
    if result.get("schedule") == "pipelined":  # recorded as they were done, in any order
        scores.sort(key=lambda line: int(line["chunk"]))
    end = 0
    for line in scores:
        if line["start"] != end:
            return "violated"
        end = line["end"]
    return "exactly once" if end == result.get("tokens") else "violated"
