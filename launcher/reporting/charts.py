"""The report's charts, each made of the report and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

from launcher import figures
from launcher.report import Report
from launcher.reporting import svg
from launcher.reporting.baselines import with_pull_request
from launcher.reporting.compliance import ARTIFACT, EVALUATION, TRAINING
from launcher.reporting.scores import Scores
from launcher.reporting.seed_report import COLUMNS, FINAL, SeedReport
from launcher.reporting.svg import Bar, Row, Series
from launcher.states import State

NUM_COLOURS = 8
GROUPS = ("attention", "mlp", "embeddings", "other")
ROBUST_POINTS = 100
"""A loss curve this long is drawn without its first steep fall, which would flatten the rest."""
MAX_SEED_BARS = 12
NEAR_BPB = 0.02
"""Records farther off would push the seeds of each into one dot."""


def colour(index: int) -> str:
    """The class of a seed's lines."""
    return f"c{index % NUM_COLOURS}"


def loss(report: Report) -> str:
    limits = _range(report)
    top = limits[1] if limits else math.inf
    series = [
        Series(
            points=[(x, y) for x, y in curves.loss if y <= top],
            classes=f"curve {colour(i)}",
            name=f"seed {curves.seed}",
        )
        for i, curves in enumerate(report.curves)
    ]
    name = "training loss, nats/token"
    return svg.lines(series, height=290, x_name="step", y_name=name, y_range=limits)


def _range(report: Report) -> tuple[float, float] | None:
    values = sorted(y for curve in report.curves for _, y in curve.loss)
    if len(values) < ROBUST_POINTS * max(len(report.curves), 1):
        return None
    return svg.span(values[: int(len(values) * 0.96)])


def learning_rate(report: Report) -> str:
    series = [
        Series(points=c.lr_scale, classes=f"curve {colour(i)}", name=f"seed {c.seed}")
        for i, c in enumerate(report.curves)
    ]
    return svg.lines(
        series, height=132, x_name="step", y_name="learning-rate scale", y_range=(0.0, 1.05)
    )


def running_bpb(report: Report) -> str:
    """TTT in full, the evaluation that does not adapt faint beside it."""
    series = []
    for i, curve in enumerate(report.curves):
        for points, weight, name in (
            (curve.running_bpb_sliding, "faint", "sliding"),
            (curve.running_bpb, "curve", "TTT"),
        ):
            classes = f"{weight} {colour(i)}"
            series.append(Series(points=points, classes=classes, name=f"seed {curve.seed}, {name}"))
    return svg.lines(series, height=230, x_name="chunk", y_name="BPB over all chunks so far")


def ttt_gain(report: Report) -> str:
    series = [
        Series(points=c.ttt_gain, classes=f"curve {colour(i)}", name=f"seed {c.seed}")
        for i, c in enumerate(report.curves)
    ]
    return svg.lines(
        series, height=200, x_name="chunk", y_name="BPB gained by adapting, per chunk", zero=True
    )


def spread(report: Report) -> str:
    """The seeds of each evaluation; then those of the last beside what they compare with."""
    evaluations = [_evaluation(report, column, name) for column, name in COLUMNS.items()]
    drawn = svg.dots(evaluations, x_name="bits a byte")
    others = [_other(scores) for scores in comparable(report)]
    if not others:
        return drawn
    last = evaluations[-1]
    return drawn + svg.dots([last, *others], x_name=f"bits a byte, {last.name} and others")


def comparable(report: Report) -> list[Scores]:
    """The registered baseline and, on the challenge's set, published records near by."""
    text = report.final_scores("").validation.text
    registered = report.policy.baseline if report.policy else None
    found = [registered] if registered and registered.validation.text == text else []
    own = report.summaries[FINAL]["val_bpb"]
    if text == "fineweb" and own is not None:
        known = [record.scores for record in with_pull_request()]
        near = [s for s in known if abs((s.mean("bpb") or math.inf) - own.mean) < NEAR_BPB]
        found += [scores for scores in near if scores not in found]
    return found


def _evaluation(report: Report, column: str, name: str) -> Row:
    scored = [
        (f"seed {seed.seed}", score.val_bpb)
        for seed in report.seeds
        if seed.state is State.DONE and (score := seed.scores[column]) is not None
    ]
    summary = report.summaries[column]["val_bpb"]
    return Row(
        name=name,
        values=scored,
        mean=summary.mean if summary else None,
        half_width=summary.half_width if summary else None,
        classes="own",
    )


def _other(scores: Scores) -> Row:
    summary = scores.summary("bpb")
    return Row(
        name=scores.name,
        values=[(f"seed {seed}", value) for seed, value in scores.by_seed("bpb").items()],
        mean=scores.mean("bpb"),
        half_width=summary.half_width if summary else None,
        classes="other",
    )


def times(report: Report) -> str:
    """Training and evaluation of each seed, on tracks as long as their budgets."""
    limits = {gate.name: gate.limit for gate in report.gates}
    kinds: tuple[tuple[str, str, Callable[[SeedReport], float | None]], ...] = (
        ("training", TRAINING, lambda seed: seed.last_step_began_s),
        ("TTT", EVALUATION, lambda seed: seed.eval_seconds),
    )
    rows = []
    for name, gate, measure in kinds:
        limit = limits.get(gate)
        for index, seed in enumerate(report.seeds[:MAX_SEED_BARS]):
            value = measure(seed)
            if value is None or not limit:
                continue
            text = f"{value:,.1f} of {limit:,.0f} s"
            label = f"{name}, seed {seed.seed}"
            rows.append(Bar(name=label, value=value, limit=limit, text=text, classes=colour(index)))
    return svg.bars(rows)


def artifact(report: Report) -> str:
    """The heaviest artifact against its budget, then every seed's by part of the model."""
    weighed = [seed for seed in report.seeds if seed.total_bytes is not None]
    limit = next((g.limit for g in report.gates if g.name == ARTIFACT), None)
    if not weighed or not limit:
        return svg.nothing()
    heaviest = max(weighed, key=lambda seed: seed.total_bytes or 0)
    total = heaviest.total_bytes or 0
    share = f"{total:,} of {limit:,.0f} bytes, {100 * total / limit:.1f}%"
    budget = Bar(name="heaviest", value=total, limit=limit, text=share, classes=colour(0))
    return svg.bars([budget]) + svg.stacks([_parts(seed) for seed in weighed[:MAX_SEED_BARS]])


def _parts(seed: SeedReport) -> tuple[str, str, list[tuple[str, float]]]:
    parts = [(f"p{i}", float(seed.group_bytes.get(name, 0))) for i, name in enumerate(GROUPS)]
    parts.append((f"p{len(GROUPS)}", float(seed.code_bytes or 0)))
    text = f"model {figures.number((seed.model_bytes or 0) / 1e6, 3)} MB"
    return f"seed {seed.seed}", f"{text}, code {(seed.code_bytes or 0) / 1e6:.3f} MB", parts
