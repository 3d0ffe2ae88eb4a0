"""The live dashboard: a pure function from a view and a page to something rich can draw.

One row a seed. Columns that a narrow terminal has no room for are left out, and where there are
more seeds than lines, those that need attention come first and the others page by page.
"""

from __future__ import annotations

import time
from itertools import repeat
from statistics import fmean

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher import figures, hints
from launcher.pages import Page, choose
from launcher.progress import Progress, thin
from launcher.states import BAD, State
from launcher.watch import SeedView, StageView, View

WIDE = 110
"""Columns from which the loss curve is drawn."""
CURVE = 20
MAX_BAR = 40
USUAL_NAME = 5
"""Characters of a seed without a variant, in `OTHER_COLUMNS`."""
MIN_NAME = 12
"""Characters that a name may take on any terminal."""
GROUP_ROOM = 24
"""What the bar leaves to the words about a group of workers."""
OTHER_COLUMNS = 64
"""Room of everything but bar and curve."""
MARKS = {
    State.PLANNED: ("·", "dim"),
    State.WAITING: ("○", "dim"),
    State.RUNNING: ("●", "cyan"),
    State.DONE: ("✔", "green"),
    State.FAILED: ("✘", "red"),
    State.CANCELLED: ("■", "magenta"),
    State.SKIPPED: ("↷", "magenta"),
    State.LOST: ("✘", "red"),
}
COMMAND_NAMES = {"roundtrip": "round trip", "ttt": "TTT"}


def render(
    view: View,
    width: int,
    height: int,
    *,
    hint: bool = True,
    page: int = 0,
    has_keys: bool = False,
) -> RenderableType:
    """Draw one page of a view for a terminal of that size; `hint` adds how to leave it."""
    below = _below(view, width, height, hint)
    shown = choose(view.seeds, _room(view, width, height, below), page)
    return Group(*_header(view), Text(), _table(view, width, shown, has_keys), *below)


def num_pages(view: View, width: int, height: int, *, hint: bool = True) -> int:
    """How many pages `render` has for it."""
    below = _below(view, width, height, hint)
    return choose(view.seeds, _room(view, width, height, below), 0).count


def _below(view: View, width: int, height: int, hint: bool) -> list[Text]:
    problems = _problems(view, max(1, (height - 10) // 6))
    return problems + (_hint(view, width) if hint else [])


def _room(view: View, width: int, height: int, below: list[Text]) -> int:
    """Lines for seeds: without header, what stands below, captions, and two to spare."""
    above = _num_lines(_header(view), width) + 3 + _is_preparing(view)
    return max(2, height - above - _num_lines(below, width))


def _header(view: View) -> list[Text]:
    title = Text.assemble(("golf-launch ", "dim"), (view.name, "bold"))
    started = f"started {figures.ago(view.now - view.created_at)}"
    lines = [title, Text.assemble(counts(view), (f"  {started}", "dim"))]
    if view.silence is not None:
        heard = view.silence.heard_at
        age = "" if heard is None else f"; it last did {figures.ago(view.now - heard)}"
        lines.append(Text(f"{view.silence.reason}{age}", style="yellow"))
    return lines


def counts(view: View) -> Text:
    """How many seeds are in which state."""
    text = Text()
    for state in State:
        count = view.count(state)
        if count:
            mark, style = MARKS[state]
            text.append("  " if text else "").append(f"{mark} {count} {state}", style=style)
    return text


def evidence(view: View) -> Table:
    """Each stage's state, who says so and when it was so."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("stage", "state", "evidence", "seen"):
        table.add_column(name, overflow="fold")
    for stage in view.stages:
        seen = stage.status.observation
        mark, style = MARKS[seen.state]
        state = Text(f"{mark} {seen.state}", style=style)
        table.add_row(stage.key, state, seen.evidence, figures.ago(seen.age_s(view.now)))
    return table


def attempts(view: View) -> Table | None:
    """Every attempt of the stages that needed more than one; nothing where none did."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("stage", "attempt", "job", "node", "began", "lasted", "end"):
        table.add_column(name, overflow="fold")
    for stage in view.stages:
        for number, attempt in enumerate(stage.attempts if len(stage.attempts) > 1 else (), 1):
            began = time.strftime("%m-%d %H:%M:%S", time.localtime(attempt.began_at))
            lasted_s = None if attempt.ended_at is None else attempt.ended_at - attempt.began_at
            end = "warned, " * attempt.warned + (attempt.end or "no word")
            code = "" if attempt.exit_code is None else f" (exit code {attempt.exit_code})"
            words = (attempt.job, attempt.node, began, figures.duration(lasted_s), end + code)
            table.add_row(stage.key if number == 1 else "", str(number), *words)
    return table if table.row_count else None


def _table(view: View, width: int, shown: Page, has_keys: bool) -> Table:
    wide = width >= WIDE
    most = max(MIN_NAME, width // 4)
    taken = OTHER_COLUMNS + (CURVE + 1 if wide else 0)
    longest = max((len(_name(seed, most)) for seed in view.seeds), default=0)
    taken += max(0, longest - USUAL_NAME)
    bar_width = min(MAX_BAR, max(8, width - taken))
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("seed", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=14)  # steady while pages turn
    table.add_column("progress", ratio=1, no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("train loss", no_wrap=True)
    for name in ("loss", "BPB", "tok/s", "ETA", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    if _is_preparing(view):
        assert view.prepare is not None
        cells = [Text("data"), _state(view.prepare), Text(view.prepare.status.reason, style="dim")]
        table.add_row(*cells)
    for seed in shown.kept:
        table.add_row(Text(_name(seed, most), style="bold"), *_row(seed, wide, bar_width))
    if shown.count > 1:
        keys = "n next, p back" if has_keys else ""
        words = ("┄┄┄┄", f"page {shown.number + 1} of {shown.count}", keys)
        table.add_row(*(Text(word, style="dim") for word in words))
    for seed in shown.turned:
        table.add_row(Text(_name(seed, most), style="bold"), *_row(seed, wide, bar_width))
    return table


def _is_preparing(view: View) -> bool:
    return view.prepare is not None and view.prepare.status.state is not State.DONE


def _name(view: SeedView, most: int) -> str:
    """Variant and seed in at most so many characters: the end of it, which tells them apart."""
    name = view.name
    return name if not view.variant or len(name) <= most else f"…{name[1 - most :]}"


def _row(view: SeedView, wide: bool, bar_width: int) -> list[Text]:
    progress = view.progress
    cells = [_state(view.stage), _progress(view, bar_width, wide)]
    if wide:
        cells.append(Text(figures.sparkline(thin(progress.losses, CURVE)), style="cyan"))
    loss, bpb = view.final_loss, view.final_bpb
    if loss is None:
        loss = progress.loss if progress.loss is not None else progress.val_loss
        bpb = progress.val_bpb
    running = view.state is State.RUNNING
    cells += [
        Text(figures.number(loss, 3)),
        Text(figures.number(bpb), style="bold green" if view.state is State.DONE else ""),
        Text(figures.rate(progress.tokens_per_s if running else None)),
        Text(figures.duration(progress.eta_s if running else None)),
        Text(figures.duration(view.elapsed_s)),
    ]
    return cells


def _state(stage: StageView) -> Text:
    state = stage.status.state
    mark, style = MARKS[state]
    command = stage.status.command or stage.kind
    word = COMMAND_NAMES.get(command, command)
    if state in (State.DONE, State.WAITING, State.PLANNED):
        word = str(state)
    elif state is not State.RUNNING:
        word = f"{stage.kind} {state}"
    again = f" ×{stage.num_attempts}" if stage.num_attempts > 1 else ""
    return Text.assemble((f"{mark} {word}", style), (again, "dim"))


def _progress(view: SeedView, bar_width: int, wide: bool) -> Text:
    progress, state = view.progress, view.state
    if state in BAD or state in (State.WAITING, State.PLANNED):
        return Text(view.stage.status.reason, style="dim")
    if state is State.DONE:
        return Text("trained, quantized, evaluated", style="dim")
    if progress.fraction is None:
        return Text("starting", style="dim")
    if progress.chunk is not None:
        counts = f" {progress.chunk}/{progress.num_chunks}"
    else:
        counts = f" {progress.step or 0}/{progress.num_steps}"
    again = f" ↻{progress.recoveries}" if progress.recoveries else ""
    group = _group(progress, wide)
    if group:
        bar_width = max(8, bar_width - GROUP_ROOM)
    text = bar(progress.fraction, bar_width).append(counts).append(again, style="yellow")
    return text.append_text(group)


def _group(progress: Progress, wide: bool) -> Text:
    """The workers of a group, and how busy they are."""
    if progress.busy is None:
        return Text()
    if progress.rebuilding:
        return Text(f" rebuilds, {progress.alive} of {len(progress.busy)} alive", style="yellow")
    if not wide:
        return Text(f"  {len(progress.busy)}×{fmean(progress.busy):.0%}", style="dim")
    by_role: dict[str, list[float]] = {}
    for role, share in zip(progress.roles or repeat("worker"), progress.busy, strict=False):
        by_role.setdefault(role, []).append(share)
    told = (
        f"{len(shares)} {role}{'s' if len(shares) > 1 else ''} {fmean(shares):.0%}"
        for role, shares in by_role.items()
    )
    return Text(f"  {', '.join(told)} busy", style="dim")


def groups(view: View) -> list[Text]:
    """For each seed evaluated by a group of workers: how many, where, and what it survived."""
    lines = []
    for seed in view.seeds:
        progress = seed.progress
        if progress.busy is None or progress.hosts is None:
            continue
        hosts = ", ".join(dict.fromkeys(progress.hosts))
        busy = " ".join(f"{share:.0%}" for share in progress.busy)
        told = f"{progress.alive} of {len(progress.busy)} workers on {hosts}, busy {busy}"
        if progress.recoveries:
            times = "once" if progress.recoveries == 1 else f"{progress.recoveries} times"
            now = " and is being rebuilt" if progress.rebuilding else ""
            told += f"; lost {times}{now}, lastly {progress.last_loss}"
        lines.append(Text.assemble((f"seed {seed.name}  ", "bold"), told))
    return lines


def bar(fraction: float, width: int) -> Text:
    """A bar of that width, full at 1."""
    full = round(min(1.0, max(0.0, fraction)) * width)
    return Text.assemble(("━" * full, "cyan"), ("━" * (width - full), "bright_black"))


def _problems(view: View, most: int) -> list[Text]:
    """What went wrong, with the end of the log; the first few."""
    stages = {seed.stage.key: (f"seed {seed.name}", seed.stage) for seed in reversed(view.seeds)}
    if view.prepare is not None:
        stages[view.prepare.key] = ("data", view.prepare)
    found = reversed(stages.values())
    bad = [(who, s) for who, s in found if s.status.state in (State.FAILED, State.LOST)]
    if not bad:
        return []
    lines = [Text()]
    for who, stage in bad[:most]:
        lines.append(Text(f"{who} {stage.status.state}: {stage.status.reason}", style="red"))
        for line in stage.log_tail[-2:]:
            lines.append(Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis"))
    more = f"… {len(bad) - most} more; " if len(bad) > most else ""
    logs = Text.assemble((f"{more}whole logs: ", "dim"), hints.command("logs", view.root))
    return [*lines, logs]


def _hint(view: View, width: int) -> list[Text]:
    leave = Text("Ctrl-C detaches, the jobs go on. Back with:", style="dim")
    again = Text(hints.command("attach", view.root))
    if len(leave) + len(again) + 2 <= width:
        return [Text(), Text.assemble(leave, "  ", again)]
    return [Text(), leave, again]


def _num_lines(texts: list[Text], width: int) -> int:
    return sum(1 if text.no_wrap else -(-max(1, len(text)) // width) for text in texts)
