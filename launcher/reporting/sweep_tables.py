"""A sweep's report as tables of text, drawn by rich or written as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from launcher import figures, text_table
from launcher.reporting import tables
from launcher.reporting.comparison import p_text
from launcher.reporting.comparison_text import signed
from launcher.sweep_report import Place, SweepReport
from launcher.text_table import TextTable

RANKING = (
    "variant",
    "verdict",
    "BPB",
    "better by BPB",
    "p (Holm)",
    "seeds",
    "95% ±",
    "std",
    "nats/token",
    "p",
)
"""What decides comes first: a phone shows no more without scrolling."""
NUM_NARROW = 7
"""Columns that 80 characters have room for; the other forms have all."""
REFERENCE = "reference"


def ranking(report: SweepReport) -> TextTable:
    """Every variant, the best first, as held against the reference."""
    rows = tuple(_rank(place) for place in report.ranking)
    title = f"Variants, best first, against {report.reference}"
    return TextTable(title=title, header=RANKING, rows=rows)


def _rank(place: Place) -> tuple[str, ...]:
    bpb, nats, comparison = place.bpb, place.nats, place.comparison
    verdict = REFERENCE
    if comparison is not None:
        verdict = {True: "shown", False: "not shown", None: "no verdict"}[comparison.passed]
    outcome = comparison.outcome if comparison else None
    return (
        place.variant,
        verdict,
        figures.number(bpb.mean if bpb else None, 5),
        signed(comparison.difference_bpb if comparison else None),
        _p(comparison.adjusted_p if comparison else None),
        f"{place.num_done}/{place.num_seeds}",
        figures.number(bpb.half_width if bpb else None, 5),
        figures.number(bpb.std if bpb else None, 5),
        figures.number(nats.mean if nats else None),
        _p(outcome.p_value if outcome else None),
    )


def _p(value: float | None) -> str:
    return figures.NONE if value is None else p_text(value)


def significance(report: SweepReport) -> tuple[tuple[str, str], ...]:
    """The policy, and each variant's verdict in words."""
    compared = [place.comparison for place in report.ranking if place.comparison is not None]
    count = len(compared)
    what = f"{count} comparisons, corrected together by Holm" if count > 1 else "one comparison"
    return (
        ("policy", f"{report.policy}; registered before the first submission"),
        ("family", what),
        *((each.candidate, each.verdict) for each in compared),
    )


def runs(report: SweepReport) -> TextTable:
    """The runs of all variants."""
    return tables.runs(report.variants, "run")


def outside_rule(report: SweepReport) -> tuple[str, ...]:
    """Why the 600 s do not apply to some of the runs, each reason once."""
    return tuple(dict.fromkeys(why for variant in report.variants for why in variant.outside_rule))


def draw(report: SweepReport) -> RenderableType:
    """The report for a terminal; the verdict comes first."""
    whole = ranking(report)
    rows = tuple(row[:NUM_NARROW] for row in whole.rows)
    narrow = TextTable(title=whole.title, header=whole.header[:NUM_NARROW], rows=rows)
    parts: list[RenderableType] = [tables.draw_verdict(report), Text()]
    parts += [text_table.draw(narrow, num_folding=1), Text()]
    parts += [tables.draw_facts("Significance", significance(report)), Text()]
    parts += [text_table.draw(runs(report), num_folding=1), Text()]
    parts += [tables.draw_rules(tables.rules(report.gates, "run"))]
    parts += tables.draw_labels(outside_rule(report), report.gates)
    parts += tables.draw_undone(report.variants)
    return Group(*parts)


def markdown(report: SweepReport) -> str:
    """The report as Markdown."""
    return "\n".join(_markdown_lines(report)) + "\n"


def _markdown_lines(report: SweepReport) -> Iterator[str]:
    yield from tables.markdown_head(report)
    whole = ranking(report)
    yield from ("", f"## {whole.title}", "", *text_table.markdown_rows(whole))
    yield from ("", "## Significance", "")
    yield from (f"- {name}: {text}" for name, text in significance(report))
    for table in (runs(report), tables.rules(report.gates, "run")):
        yield from ("", f"## {table.title}", "", *text_table.markdown_rows(table))
    yield from ("", *(f"Outside the 600 s rule: {why}." for why in outside_rule(report)))
    for variant in report.variants:
        scores = tables.scores(variant)
        yield from (f"## {variant.variant}", "", *text_table.markdown_rows(scores), "")
    yield tables.SCORES_NOTE
    yield from tables.markdown_undone(report.variants)
