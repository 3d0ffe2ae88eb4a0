"""The report as one HTML page that needs no network: verdict, figures, charts, tables.

The style sheet lies beside this file and is written into the page; charts are inline SVG.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from launcher import figures
from launcher.report import Report
from launcher.reporting import charts, tables
from launcher.reporting.compliance import ARTIFACT, EVALUATION, TRAINING
from launcher.reporting.seed_report import FINAL
from launcher.reporting.svg import escape
from launcher.states import State
from launcher.sweep_report import SweepReport
from launcher.text_table import BAD, GOOD, TextTable

STYLE = Path(__file__).with_name("report.css")
MAX_LEGEND = 16
WORD_COLUMNS = ("evidence", "note")


def page(report: Report) -> str:
    """The whole page."""
    tiles = draw_tiles(_tiles(report))
    labels = outside(report.outside_rule)
    return document(report, [*labels, tiles, '<div class="cards">', *cards(report), "</div>"])


def document(report: Report | SweepReport, inside: Iterable[str]) -> str:
    """A page that begins with the verdict."""
    body = "\n".join((*_head(report), *inside, _foot(report)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.name)}</title>\n<style>\n{STYLE.read_text()}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(report: Report | SweepReport) -> Iterator[str]:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.created_at))
    code = ""
    if report.git:
        changed = ", with uncommitted changes" if report.git["changed"] else ""
        code = f" · commit {report.git['commit'][:12]}{changed}"
    yield f"<header><h1>{escape(report.name)}</h1>"
    yield f"<p>job {escape(report.job)} · {made}{escape(code)}</p></header>"
    mark, kind = ("✔", "") if report.exit_code == 0 else ("✘", " bad")
    yield f'<p class="verdict{kind}">{mark} {escape(report.verdict)}</p>'


def outside(reasons: Sequence[str]) -> Iterator[str]:
    for why in reasons:
        yield f'<p class="label-note">Outside the 600 s rule: {escape(why)}</p>'


def _tiles(report: Report) -> list[tuple[str, str]]:
    bpb, nats = report.summaries[FINAL]["val_bpb"], report.summaries[FINAL]["val_loss"]
    worst = {gate.name: gate for gate in report.gates}
    return [
        (figures.number(bpb.mean if bpb else None), "BPB after TTT, mean"),
        (figures.number(bpb.half_width if bpb else None), "± at 95%, Student-t"),
        (figures.number(nats.mean if nats else None), "nats/token after TTT"),
        (amount_of(worst[ARTIFACT].figure, 1e6, "MB"), "artifact with its code, worst"),
        (amount_of(worst[TRAINING].figure, 1, "s"), "training, worst"),
        (amount_of(worst[EVALUATION].figure, 1, "s"), "TTT evaluation, worst"),
    ]


def draw_tiles(tiles: Sequence[tuple[str, str]]) -> str:
    """Figures, each with what it is."""
    inside = "".join(
        f'<div class="tile"><b>{escape(b)}</b><span>{escape(t)}</span></div>' for b, t in tiles
    )
    return f'<div class="tiles">{inside}</div>'


def amount_of(value: float | None, unit: float, name: str) -> str:
    return figures.NONE if value is None else f"{value / unit:,.{2 if unit > 1 else 1}f} {name}"


def cards(report: Report) -> Iterator[str]:
    seeds = _legend([(charts.colour(i), f"seed {s.seed}") for i, s in enumerate(report.seeds)])
    parts = [(f"p{i}", name) for i, name in enumerate((*charts.GROUPS, "code"))]
    yield card("Seeds, their mean and its 95% interval", charts.spread(report))
    yield card("Significance", draw_facts(tables.significance(report)))
    curves = charts.loss(report) + charts.learning_rate(report)
    yield card("Training", curves + seeds)
    running = charts.running_bpb(report)
    note = _legend([], "solid: TTT; dotted: sliding, which does not adapt")
    yield card("Evaluation, chunk by chunk", running + charts.ttt_gain(report) + seeds + note)
    yield card("Time against its budget", charts.times(report))
    yield card("Artifact bytes", charts.artifact(report) + _legend(parts))
    yield card("Scores", draw_table(tables.scores(report)), wide=True)
    yield card("Rules, on the worst seed", draw_table(tables.rules(report.gates)), wide=True)
    yield card("Runs", draw_table(tables.runs([report])), wide=True)
    bad = [seed for seed in report.seeds if seed.state is not State.DONE]
    if bad:
        facts = [(f"{s.seed} {s.state}", f"{s.reason or 'no reason given'} ({s.log})") for s in bad]
        yield card("Seeds that are not done", draw_facts(facts), wide=True)


def card(title: str, inside: str, wide: bool = False) -> str:
    kind = "card wide" if wide else "card"
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{inside}</section>'


def _legend(entries: Sequence[tuple[str, str]], note: str = "") -> str:
    if len(entries) > MAX_LEGEND:
        note = note or f"and {len(entries) - MAX_LEGEND} more, in the same colours again"
    inside = "".join(
        f'<span><i class="{c}"></i>{escape(name)}</span>' for c, name in entries[:MAX_LEGEND]
    )
    return f'<div class="legend">{inside}{escape(note)}</div>'


def draw_facts(facts: Sequence[tuple[str, str]]) -> str:
    inside = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<dl>{inside}</dl>"


def draw_table(table: TextTable) -> str:
    words = [name in WORD_COLUMNS for name in table.header]
    head = "".join(
        f"<th{_words_class(word)}>{escape(name)}</th>"
        for name, word in zip(table.header, words, strict=True)
    )
    rows = "".join(_row(row, words) for row in table.rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _row(row: Sequence[str], words: Sequence[bool]) -> str:
    kind = {"mean": "sum mean", "std": "sum", "95% ±": "sum"}.get(row[0], "")
    cells = "".join(
        f"<td{_words_class(word)}>{_cell(cell)}</td>" for cell, word in zip(row, words, strict=True)
    )
    return f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>"


def _words_class(word: bool) -> str:
    return ' class="words"' if word else ""


def _cell(cell: str) -> str:
    kind = "good" if cell in GOOD else "bad" if cell in BAD else ""
    return f'<span class="pill {kind}">{escape(cell)}</span>' if kind else escape(cell)


def _foot(report: Report | SweepReport) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.collected_at))
    return f"<footer>{escape(tables.SCORES_NOTE)} Collected {when}; {report.schema}.</footer>"
