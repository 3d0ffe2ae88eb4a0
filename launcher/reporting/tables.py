"""The report as tables of text, and those drawn by rich or written as Markdown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher import figures, hints, text_table
from launcher.progress import thin
from launcher.report import Power, Report
from launcher.reporting import comparison_text
from launcher.reporting.compliance import Gate
from launcher.reporting.curves import Points
from launcher.reporting.seed_report import COLUMNS, SeedReport
from launcher.states import State
from launcher.sweep_report import SweepReport
from launcher.text_table import TextTable

GROUPED_ROWS = ("mean", "std", "95% ±")
COURSE_WIDTH = 28
MAX_COURSES = 12
SCORES_NOTE = (
    "Loss is in nats a token, BPB in bits a byte. Mean, sample standard deviation and Student-t "
    "interval are over the seeds that are done."
)


def tables(report: Report) -> tuple[TextTable, ...]:
    """Scores, runs and rules."""
    return scores(report), runs([report]), rules(report.gates)


def significance(report: Report) -> tuple[tuple[str, str], ...]:
    """What the scores say against the registered baseline, and what so many seeds can say."""
    found: list[tuple[str, str]] = []
    if report.comparison is not None and report.policy is not None:
        found += comparison_text.facts(report.comparison, report.policy)
    elif report.policy is not None and report.policy.baseline is not None:
        found += [("policy", str(report.policy)), ("baseline", report.policy.baseline.name)]
    elif report.variant:
        found.append(("compared", "with the other variants, in the sweep's own table"))
    else:
        found.append(("baseline", "none was registered; name one at launch with --baseline pr1493"))
    if report.power is not None:
        found.append(("power", power_text(report.power)))
    return tuple(found)


def power_text(power: Power) -> str:
    whose = "their own" if power.observed else "the published"
    spread = f"{whose} spread of {power.std_bpb:.5f} BPB"
    if power.least_difference_bpb is None:
        return f"one seed shows no difference of any size; {spread}"
    return (
        f"{power.count} seeds against as many find a true difference of "
        f"{power.least_difference_bpb:.5f} BPB 4 times of 5 at alpha {power.alpha:g}, by {spread}"
    )


def scores(report: Report) -> TextTable:
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


def runs(reports: Sequence[Report], who: str = "seed") -> TextTable:
    """The runs of an experiment, or of all variants of a sweep."""
    lossy = any(seed.recoveries for report in reports for seed in report.seeds)
    header = (
        who,
        "state",
        "steps",
        "train s",
        "TTT s",
        "model B",
        "code B",
        "total B",
        "ledger",
        *(("recovered",) if lossy else ()),
    )
    rows = tuple(
        (
            f"{report.variant} {seed.seed}".strip() if who != "seed" else str(seed.seed),
            str(seed.state),
            _count(seed.steps),
            figures.number(seed.train_seconds, 1),
            figures.number(seed.eval_seconds, 1),
            _count(seed.model_bytes),
            _count(seed.code_bytes),
            _count(seed.total_bytes),
            figures.NONE if seed.ledger == "not verified" else seed.ledger,
            *((str(seed.recoveries),) if lossy else ()),
        )
        for report in reports
        for seed in report.seeds
    )
    return TextTable(title="Runs", header=header, rows=rows)


def rules(gates: Sequence[Gate], who: str = "seed") -> TextTable:
    """Each rule with its worst figure and the file that proves it."""
    rows = tuple(
        (
            gate.name,
            _gate_verdict(gate),
            _amount(gate, gate.figure),
            _amount(gate, gate.limit),
            figures.NONE if gate.seed is None else f"{gate.variant} {gate.seed}".strip(),
            gate.evidence or figures.NONE,
            gate.note or figures.NONE,
        )
        for gate in gates
    )
    header = ("rule", "verdict", "worst", "limit", who, "evidence", "note")
    return TextTable(title=f"Rules, on the worst {who}", header=header, rows=rows)


def _gate_verdict(gate: Gate) -> str:
    if gate.passed is None:
        return "not limited" if gate.limit is None else "not measured"
    return "pass" if gate.passed else "FAIL"


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
    parts: list[RenderableType] = [draw_verdict(report), Text(), _draw_scores(scores(report))]
    parts += [Text(), draw_facts("Significance", significance(report))]
    parts += [Text(), text_table.draw(runs([report]))]
    courses = _courses(report)
    if courses.rows:
        parts += [Text(), text_table.draw(courses)]
    parts += [Text(), draw_rules(rules(report.gates))]
    parts += [*draw_labels(report.outside_rule, report.gates)]
    return Group(*parts, *draw_undone([report]))


def draw_undone(reports: Sequence[Report]) -> Iterator[Text]:
    """Seeds that are not done, each with its reason and log."""
    for report in reports:
        for seed in report.seeds:
            if seed.state is not State.DONE:
                reason = f": {seed.reason}" if seed.reason else ""
                name = f"{report.variant} seed {seed.seed}".strip()
                yield Text(f"\n{name} {seed.state}{reason}", style="red")
                yield Text(f"  {hints.short(Path(seed.log))}", style="dim", overflow="fold")


def draw_verdict(report: Report | SweepReport) -> Text:
    good = report.exit_code == 0
    return Text(f"{'✔' if good else '✘'} {report.verdict}", f"bold {'green' if good else 'red'}")


def draw_labels(outside: Sequence[str], gates: Sequence[Gate]) -> Iterator[Text]:
    """What the rules do not apply to, and the evidence of those that are broken."""
    for why in outside:
        yield Text(f"outside the 600 s rule: {why}", style="magenta")
    for gate in gates:
        if gate.passed is False:
            line = f"{gate.name}: {gate.note} {gate.evidence}"
            yield Text(line, style="red", overflow="fold")


def _courses(report: Report) -> TextTable:
    """Curves in little bars, for the seeds that have come so far."""
    rows = tuple(
        (str(curves.seed), _bars(curves.loss), _bars(curves.ttt_gain))
        for curves in report.curves[:MAX_COURSES]
        if curves.loss
    )
    header = ("seed", "training loss", "BPB gained by TTT, per chunk")
    return TextTable(title="Courses", header=header, rows=rows)


def _bars(points: Points) -> str:
    values = tuple(y for _, y in points)
    return figures.sparkline(thin(values, COURSE_WIDTH)) or figures.NONE


def draw_facts(title: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Names and what there is to say of them."""
    drawn = text_table.frame(title)
    drawn.show_header = False
    drawn.add_column(no_wrap=True, style="dim")
    drawn.add_column(overflow="fold")
    for name, text in facts:
        drawn.add_row(name, text)
    return drawn


def draw_rules(table: TextTable) -> Table:
    """Without the evidence, which takes more than 80 characters; the other forms have it."""
    rows = tuple(row[:5] for row in table.rows)
    shown = TextTable(title=table.title, header=table.header[:5], rows=rows)
    return text_table.draw(shown, num_folding=1, last_folds=True)


def _draw_scores(table: TextTable) -> Table:
    """Two figures a column, so that four evaluations fit into 80 characters."""
    drawn = text_table.frame("Scores, in nats a token and bits a byte")
    drawn.add_column("seed", no_wrap=True)
    for name in COLUMNS.values():
        drawn.add_column(f"{name}\n  loss     BPB", justify="right", no_wrap=True)
    for row in table.rows:
        pairs = zip(row[1::2], row[2::2], strict=True)
        style = "" if row[0] not in GROUPED_ROWS else "bold" if row[0] == "mean" else "dim"
        cells = [f"{loss:>6} {bpb:>7}" for loss, bpb in pairs]
        drawn.add_row(row[0], *cells, style=style)
    return drawn


def markdown(report: Report) -> str:
    """The report as Markdown."""
    lines = markdown_head(report)
    for table in tables(report):
        lines += ["", f"## {table.title}", "", *text_table.markdown_rows(table)]
        if table.title == "Scores":
            lines += ["", SCORES_NOTE, "", "## Significance", ""]
            lines += [f"- {name}: {text}" for name, text in significance(report)]
    lines += ["", *(f"Outside the 600 s rule: {why}." for why in report.outside_rule)]
    return "\n".join([*lines, *markdown_undone([report])]) + "\n"


def markdown_head(report: Report | SweepReport) -> list[str]:
    """Name, verdict, job and code."""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.created_at))
    lines = [f"# {report.name}", "", f"**{report.verdict}**", "", f"Job {report.job}, {made}."]
    if report.git:
        changed = ", with uncommitted changes" if report.git["changed"] else ""
        lines[-1] += f" Code: commit {report.git['commit'][:12]}{changed}, copied to `code/`."
    return lines


def markdown_undone(reports: Sequence[Report]) -> Iterator[str]:
    """Seeds that are not done, each with its reason and log."""
    bad = [(r.variant, s) for r in reports for s in r.seeds if s.state is not State.DONE]
    if bad:
        yield from ("", "## Seeds that are not done", "")
    for variant, seed in bad:
        name = f"{variant} {seed.seed}".strip()
        yield f"- {name}: {seed.state}: {seed.reason or 'no reason given'} (`{seed.log}`)"
