"""The report as tables of text, and those drawn by rich or written as Markdown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher import figures, hints
from launcher.report import COLUMNS, Gate, Report, SeedReport
from launcher.states import State

GROUPED_ROWS = ("mean", "std", "95% ±")


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table before it is drawn; the first column names the row, the others are figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: Report) -> tuple[TextTable, ...]:
    """Scores, runs and limits."""
    return _scores(report), _runs(report), _limits(report)


def _scores(report: Report) -> TextTable:
    header = ["seed"]
    for name in COLUMNS.values():
        header += [f"{name} loss", f"{name} BPB"]
    rows = [(str(seed.seed), *_score_cells(seed)) for seed in report.seeds]
    for label, field in zip(GROUPED_ROWS, ("mean", "std", "half_width"), strict=True):
        cells = []
        for column in COLUMNS:
            for key in ("val_loss", "val_bpb"):
                summary = report.summaries[column][key]
                cells.append(figures.number(getattr(summary, field) if summary else None))
        rows.append((label, *cells))
    return TextTable(title="Scores", header=tuple(header), rows=tuple(rows))


def _score_cells(seed: SeedReport) -> Iterator[str]:
    for column in COLUMNS:
        score = seed.scores[column]
        yield figures.number(score.val_loss if score else None)
        yield figures.number(score.val_bpb if score else None)


def _runs(report: Report) -> TextTable:
    header = (
        "seed",
        "state",
        "steps",
        "train s",
        "TTT s",
        "model B",
        "code B",
        "total B",
        "ledger",
    )
    rows = tuple(
        (
            str(seed.seed),
            str(seed.state),
            _count(seed.steps),
            figures.number(seed.train_seconds, 1),
            figures.number(seed.eval_seconds, 1),
            _count(seed.model_bytes),
            _count(seed.code_bytes),
            _count(seed.total_bytes),
            figures.NONE if seed.ledger == "not verified" else seed.ledger,
        )
        for seed in report.seeds
    )
    return TextTable(title="Runs", header=header, rows=rows)


def _limits(report: Report) -> TextTable:
    rows = tuple(
        (
            gate.name,
            _amount(gate, gate.figure),
            _amount(gate, gate.limit),
            figures.NONE if gate.seed is None else str(gate.seed),
            {True: "pass", False: "FAIL", None: "not measured"}[gate.passed],
        )
        for gate in report.gates
    )
    header = ("limit", "worst", "allowed", "seed", "verdict")
    return TextTable(title="Limits, on the worst seed", header=header, rows=rows)


def _count(value: int | None) -> str:
    return figures.NONE if value is None else f"{value:,}"


def _amount(gate: Gate, value: float | None) -> str:
    if value is None:
        return figures.NONE
    if gate.unit == "s":
        return f"{value:,.1f} s"
    return f"{value:,.0f} {gate.unit.removesuffix('s') if value == 1 else gate.unit}"


def draw(report: Report) -> RenderableType:
    """The report for a terminal; the verdict comes first."""
    style = "bold green" if report.exit_code == 0 else "bold red"
    mark = "✔" if report.exit_code == 0 else "✘"
    parts: list[RenderableType] = [Text(f"{mark} {report.verdict}", style=style)]
    for table in tables(report):
        parts += [Text(), _draw_scores(table) if table.title == "Scores" else _draw(table)]
    for seed in report.seeds:
        if seed.state is not State.DONE:
            reason = f": {seed.reason}" if seed.reason else ""
            parts += [Text(), Text(f"seed {seed.seed} {seed.state}{reason}", style="red")]
            parts.append(Text(f"  {hints.short(Path(seed.log))}", style="dim", overflow="fold"))
    return Group(*parts)


def _draw(table: TextTable) -> Table:
    drawn = _frame(table.title)
    for index, name in enumerate(table.header):
        drawn.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return drawn


def _draw_scores(table: TextTable) -> Table:
    """Two figures a column, so that four evaluations fit into 80 characters."""
    drawn = _frame("Scores, in nats a token and bits a byte")
    drawn.add_column("seed", no_wrap=True)
    for name in COLUMNS.values():
        drawn.add_column(f"{name}\n  loss     BPB", justify="right", no_wrap=True)
    for row in table.rows:
        pairs = zip(row[1::2], row[2::2], strict=True)
        style = "" if row[0] not in GROUPED_ROWS else "bold" if row[0] == "mean" else "dim"
        cells = [f"{loss:>6} {bpb:>7}" for loss, bpb in pairs]
        drawn.add_row(row[0], *cells, style=style)
    return drawn


def _frame(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )


def _style(cell: str) -> str:
    if cell in ("FAIL", "violated", *(str(s) for s in (State.FAILED, State.LOST))):
        return "bold red"
    return "green" if cell in ("pass", "verified", str(State.DONE)) else ""


def markdown(report: Report) -> str:
    """The report as Markdown."""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.created_at))
    lines = [f"# {report.name}", "", f"**{report.verdict}**", "", f"Job {report.job}, {made}."]
    if report.git:
        changed = ", with uncommitted changes" if report.git["changed"] else ""
        lines[-1] += f" Code: commit {report.git['commit'][:12]}{changed}, copied to `code/`."
    for table in tables(report):
        lines += ["", f"## {table.title}", "", *_markdown_rows(table)]
    lines += [
        "",
        "Loss is in nats a token, BPB in bits a byte. Mean, sample standard deviation and",
    ]
    lines += ["Student-t interval are over the seeds that are done."]
    bad = [seed for seed in report.seeds if seed.state is not State.DONE]
    if bad:
        lines += ["", "## Seeds that are not done", ""]
        lines += [
            f"- {s.seed}: {s.state}: {s.reason or 'no reason given'} (`{s.log}`)" for s in bad
        ]
    return "\n".join(lines) + "\n"


def _markdown_rows(table: TextTable) -> Iterator[str]:
    yield f"| {' | '.join(table.header)} |"
    yield f"|---|{'---:|' * (len(table.header) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(row)} |"
