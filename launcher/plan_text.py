"""A plan as people read it: what is checked, which stages, and their very commands."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.checks import Check, Verdict
from launcher.plan import Plan
from launcher.stage import Stage

STYLES = {
    Verdict.OK: ("✔", "green"),
    Verdict.WARN: ("!", "magenta"),
    Verdict.FAIL: ("✘", "red"),
}


def draw(plan: Plan, checks: Sequence[Check]) -> RenderableType:
    """Seeds, checks and stages for a terminal."""
    seeds = ", ".join(map(str, plan.seeds))
    title = Text.assemble(("plan ", "dim"), (plan.paths.root.name, "bold"), f"  seeds {seeds}")
    return Group(title, Text(), draw_checks(checks), Text(), _stages(plan))


def command_lines(plan: Plan) -> Iterator[str]:
    """The command lines of the first seed's stages, as a shell takes them, and of a sweep those
    of its first variant."""
    root = str(plan.paths.root)
    yield f"RUN={shlex.quote(root)}"
    for stage in _one_of_each(plan):
        yield f"# {stage.key}"
        for command in stage.commands:
            yield shlex.join(command.argv).replace(root, "$RUN")
    others = [str(seed) for seed in plan.seeds[1:]] + [v.key for v in plan.variants[1:]]
    if others:
        yield f"# and the same for {', '.join(others)}"


def draw_checks(checks: Sequence[Check]) -> Table:
    """A line a check: verdict, figure, fix."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, style = STYLES[check.verdict]
        figure = Text(check.figure)
        if check.fix:
            figure.append(f"\n→ {check.fix}", style=style)
        table.add_row(Text(mark, style=style), Text(check.name), figure)
    return table


def _stages(plan: Plan) -> Table:
    """One row for each kind of stage; the seeds differ only in their number."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("stage", "jobs", "after", "runs", "each"):
        table.add_column(name, overflow="fold")
    for stage in _one_of_each(plan):
        count = sum(other.kind == stage.kind for other in plan.stages)
        resources = stage.resources
        nodes = f"{resources.nodes} nodes of " if resources.nodes > 1 else ""
        gpus = f"{resources.gpus_per_node} GPU, " if resources.gpus_per_node else ""
        table.add_row(
            stage.kind,
            str(count),
            ", ".join(key.split("/")[-1] for key in stage.after) or "–",
            ", ".join(command.name for command in stage.commands),
            f"{nodes}{gpus}{resources.cpus_per_task} CPU, {resources.mem_gb} GiB, "
            f"{resources.time_minutes} min",
        )
    return table


def _one_of_each(plan: Plan) -> list[Stage]:
    return list({stage.kind: stage for stage in reversed(plan.stages)}.values())[::-1]


def plain(plan: Plan, checks: Sequence[Check]) -> dict[str, Any]:
    """The plan as nested plain values, every stage of every seed spelled out."""
    return {
        "name": plan.paths.root.name,
        "path": str(plan.paths.root),
        "seeds": list(plan.seeds),
        "variants": [variant.registration() for variant in plan.variants],
        "data": str(plan.data),
        "checks": [dataclasses.asdict(check) for check in checks],
        "stages": [
            {
                "key": stage.key,
                "after": list(stage.after),
                "resources": dataclasses.asdict(stage.resources),
                "env": stage.env,
                "commands": [dataclasses.asdict(command) for command in stage.commands],
            }
            for stage in plan.stages
        ],
    }
