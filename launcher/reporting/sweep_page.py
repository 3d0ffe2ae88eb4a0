"""A sweep's report as one HTML page: the ranking first, then each variant's own cards."""

from __future__ import annotations

from collections.abc import Iterator

from launcher import figures
from launcher.reporting import svg, sweep_tables, tables
from launcher.reporting.comparison import p_text
from launcher.reporting.compliance import ARTIFACT, EVALUATION
from launcher.reporting.html import (
    amount_of,
    card,
    cards,
    document,
    draw_facts,
    draw_table,
    draw_tiles,
    outside,
)
from launcher.reporting.seed_report import FINAL
from launcher.reporting.svg import Row, escape
from launcher.sweep_report import SweepReport


def page(report: SweepReport) -> str:
    """The whole page."""
    return document(report, _inside(report))


def _inside(report: SweepReport) -> Iterator[str]:
    yield from outside(sweep_tables.outside_rule(report))
    yield draw_tiles(_tiles(report))
    yield '<div class="cards">'
    ranking = sweep_tables.ranking(report)
    yield card(ranking.title, draw_table(ranking), wide=True)
    yield card("Variants, their seeds, mean and its 95% interval", _spread(report))
    yield card("Significance", draw_facts(sweep_tables.significance(report)))
    rules = tables.rules(report.gates, "run")
    yield card(rules.title, draw_table(rules), wide=True)
    yield card("Runs", draw_table(sweep_tables.runs(report)), wide=True)
    yield "</div>"
    for variant in report.variants:
        yield f"<details><summary>{escape(variant.variant)}</summary>"
        yield '<div class="cards">'
        yield from cards(variant)
        yield "</div></details>"


def _tiles(report: SweepReport) -> list[tuple[str, str]]:
    best = report.ranking[0]
    comparison = best.comparison
    worst = {gate.name: gate for gate in report.gates}
    adjusted = comparison.adjusted_p if comparison else None
    return [
        (best.variant if best.bpb else figures.NONE, "best by its mean"),
        (figures.number(best.bpb.mean if best.bpb else None), "its BPB after TTT, mean"),
        (
            figures.number(comparison.difference_bpb if comparison else None, 5),
            f"BPB better than {report.reference}",
        ),
        (figures.NONE if adjusted is None else p_text(adjusted), "p, corrected by Holm"),
        (amount_of(worst[ARTIFACT].figure, 1e6, "MB"), "artifact with its code, worst"),
        (amount_of(worst[EVALUATION].figure, 1, "s"), "TTT evaluation, worst"),
    ]


def _spread(report: SweepReport) -> str:
    """A row a variant, the best first, and the registered baseline below them."""
    places = {place.variant: place for place in report.ranking}
    reports = {variant.variant: variant for variant in report.variants}
    rows = []
    for key, place in places.items():
        scores = [(seed.seed, seed.scores[FINAL]) for seed in reports[key].seeds]
        rows.append(
            Row(
                name=key,
                values=[(f"seed {seed}", s.val_bpb) for seed, s in scores if s is not None],
                mean=place.bpb.mean if place.bpb else None,
                half_width=place.bpb.half_width if place.bpb else None,
                classes="own",
            )
        )
    baseline = report.policy.baseline
    if baseline is not None:
        summary = baseline.summary("bpb")
        rows.append(
            Row(
                name=baseline.name,
                values=[(f"seed {seed}", v) for seed, v in baseline.by_seed("bpb").items()],
                mean=baseline.mean("bpb"),
                half_width=summary.half_width if summary else None,
                classes="other",
            )
        )
    return svg.dots(rows, x_name="bits a byte after TTT")
