"""golf-launch sweep: watch the experiments of a sweep to their end, and rank its variants.

`golf-launch JOB --seeds ... --sweep section.key=a,b` starts one.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.commands import arguments as shared
from launcher.errors import LaunchError

if TYPE_CHECKING:
    from launcher.plan import Plan
    from launcher.profile import Profile
    from launcher.report import Report
    from launcher.reporting.comparison import Comparison
    from launcher.reporting.policy import Policy
    from launcher.reporting.scores import Scores
    from launcher.sweep import Sweep

DETACHED = 130
EXIT_ORDER = (0, 3, 4, 1)
"""The worst of the experiments' exit codes is the sweep's; a run that failed is the worst."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweep", nargs="?", metavar="SWEEP", help="its name or a part of it; the newest by default"
    )
    shared.add_runs(parser)
    shared.add_json(parser, "events, and at the end the ranking, as JSON lines")


def main(arguments: argparse.Namespace) -> int:
    from launcher.sweep import find_sweep

    runs = shared.runs_of(arguments).absolute()
    return watch(find_sweep(runs, arguments.sweep), runs, json_lines=arguments.json)


def launch(arguments: argparse.Namespace) -> int:
    """Plan every variant, register them all, and only then submit the first."""
    from launcher.commands import run
    from launcher.executors.choice import executor_of
    from launcher.experiment import new_name
    from launcher.submit import submit_missing
    from launcher.sweep import Sweep, Variant, parse_sweep

    runs, now = shared.runs_of(arguments).absolute(), time.time()
    policy = run.registered_policy(arguments)
    name, plans = new_name("sweep", now), []
    for number, overrides in enumerate(parse_sweep(arguments.sweep), start=1):
        own = copy.copy(arguments)
        own.overrides = [*arguments.overrides, *overrides]
        plan, profile = run.make(own, f"{name}.{number}")
        plans.append((overrides, own, plan, profile))
    _check([(overrides, plan, profile) for overrides, _, plan, profile in plans], policy, arguments)
    if arguments.dry_run:
        return 0
    variants = tuple(Variant(overrides=o, experiment=p.paths.root.name) for o, _, p, _ in plans)
    sweep = Sweep(name=name, created_at=now, policy=policy, variants=variants)
    experiments = [
        # The sweep's policy judges them together; each by itself makes no claim.
        run.register(own, plan, profile, shared.policy_of(arguments))
        for _, own, plan, profile in plans
    ]
    sweep.write(runs)
    for experiment in experiments:
        submit_missing(experiment, executor_of(experiment))
    if arguments.json:
        names = [experiment.name for experiment in experiments]
        print(json.dumps({"event": "submitted", "sweep": name, "experiments": names}), flush=True)
    else:
        print(f"\n{len(experiments)} variants submitted; come back with:  golf-launch sweep {name}")
    return 0 if arguments.detach else watch(sweep, runs, json_lines=arguments.json)


def _check(
    plans: list[tuple[tuple[str, ...], Plan, Profile]],
    policy: Policy,
    arguments: argparse.Namespace,
) -> None:
    """Show the first variant's plan, and refuse the sweep if any variant is refused."""
    from rich.console import Console

    from launcher import plan_text
    from launcher.checks import Verdict
    from launcher.reporting.forecast import forecast
    from launcher.site import site_of

    failed = set()
    for index, (overrides, plan, profile) in enumerate(plans):
        checks = (*site_of(profile).checks(plan), *forecast(plan, policy))
        failed |= {check.name for check in checks if check.verdict is Verdict.FAIL}
        if arguments.json:
            event = {"event": "plan", "time": time.time(), **plan_text.plain(plan, checks)}
            print(json.dumps({**event, "variant": " ".join(overrides)}))
        elif index == 0:
            Console().print(plan_text.draw(plan, checks))
            print(f"\n{len(plans)} variants of {len(plan.seeds)} seeds:")
            print(*(f"  {' '.join(overrides)}" for overrides, _, _ in plans), sep="\n")
    if failed:
        raise LaunchError(f"nothing was started; see above: {', '.join(sorted(failed))}")


def watch(sweep: Sweep, runs: Path, *, json_lines: bool) -> int:
    """Show one experiment after the other until none runs or waits, then rank them."""
    from launcher.clock import SystemClock
    from launcher.commands.attach import show_views
    from launcher.executors.choice import executor_of
    from launcher.experiment import Experiment
    from launcher.report import collect, write
    from launcher.watch import Watcher

    reports = []
    try:
        for number, variant in enumerate(sweep.variants, start=1):
            if not json_lines:
                print(f"\n{number} of {len(sweep.variants)}: {variant.label}", flush=True)
            experiment = Experiment.open(runs / variant.experiment)
            executor = executor_of(experiment)
            show_views(Watcher(experiment, executor, SystemClock()).views(), json_lines)
            report = collect(experiment, executor)
            write(report, experiment.paths)
            reports.append(report)
    except KeyboardInterrupt:
        print(f"\ndetached; the jobs go on. Back with:  golf-launch sweep {sweep.name}")
        return DETACHED
    scores, comparisons = rank(sweep, reports)
    if json_lines:
        print(json.dumps(_plain(sweep, scores, comparisons)))
    else:
        _show(sweep, scores, comparisons)
    return max((report.exit_code for report in reports), key=EXIT_ORDER.index)


def rank(sweep: Sweep, reports: list[Report]) -> tuple[list[Scores], tuple[Comparison, ...]]:
    """Every variant against the registered baseline, or else against the first variant."""
    from launcher.reporting.comparison import judge

    scores = [
        dataclasses.replace(report.final_scores(report.name), name=variant.label)
        for variant, report in zip(sweep.variants, reports, strict=True)
    ]
    baseline = sweep.policy.baseline
    candidates = scores if baseline else scores[1:]
    against = baseline or scores[0]
    comparisons = judge([(candidate, against) for candidate in candidates], sweep.policy)
    return [*scores, *([baseline] if baseline else [])], comparisons


def _plain(
    sweep: Sweep, scores: list[Scores], comparisons: tuple[Comparison, ...]
) -> dict[str, Any]:
    return {
        "event": "ranking",
        "sweep": sweep.name,
        "policy": sweep.policy.plain(),
        "configurations": [each.plain() for each in scores],
        "comparisons": [dataclasses.asdict(each) for each in comparisons],
    }


def _show(sweep: Sweep, scores: list[Scores], comparisons: tuple[Comparison, ...]) -> None:
    from rich.console import Console

    from launcher import text_table
    from launcher.reporting import comparison_text

    console = Console()
    console.print()
    console.print(text_table.draw(comparison_text.configurations(scores), num_folding=1))
    console.print()
    console.print(text_table.draw(comparison_text.results(comparisons), num_folding=2))
    for each in comparisons:
        console.print(f"\n{each.candidate}: {each.verdict}", style="dim", highlight=False)
    count = len(comparisons)
    what = f"{count} comparisons corrected together by Holm" if count > 1 else "one comparison"
    console.print(f"\n{sweep.policy}; {what}; registered before the first submission", style="dim")
