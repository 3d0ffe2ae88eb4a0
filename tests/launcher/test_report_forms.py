"""Terminal, Markdown and HTML show the figures of report.json, and no figure is nowhere."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lab import Lab, train_and_eval
from rich.console import Console
from test_compare import known
from test_report import SEEDS, finish, report_of

from golf.records import write_json
from launcher.experiment import Experiment
from launcher.reporting import tables
from launcher.reporting.policy import Policy
from launcher.reporting.units import Margin
from launcher.results import write_results

Show = Callable[[float], str]
FOUR: Show = "{:.4f}".format
FIVE: Show = "{:.5f}".format
WHOLE: Show = "{:,.0f}".format
SECONDS: Show = "{:,.1f}".format
SHOWN: dict[str, Show] = {
    r"seeds/\d+/seed": "{:.0f}".format,
    r"seeds/\d+/scores/\w+/val_(loss|bpb)": FOUR,
    r"seeds/\d+/(steps|model_bytes|code_bytes|total_bytes)": WHOLE,
    r"seeds/\d+/(train|eval)_seconds": SECONDS,
    r"summaries/\w+/val_\w+/(mean|std|half_width)": FOUR,
    r"gates/(artifact with its code|registered .*)/(figure|limit)": WHOLE,
    r"gates/(ledgers verified|each .*|.* recorded)/(figure|limit)": WHOLE,
    r"gates/(last .*|quantization|TTT evaluation)/(figure|limit)": SECONDS,
    r"policy/(alpha|margin/amount)": "{:g}".format,
    r"comparison/difference_(bpb|nats)": "{:+.5f}".format,
    r"comparison/baseline_bpb": FIVE,
    r"comparison/outcome/statistic": "{:.2f}".format,
    r"comparison/outcome/degrees": SECONDS,
    r"comparison/(adjusted_p|outcome/p_value)": "{:.1e}".format,
    r"comparison/least_difference": FIVE,
    r"power/(std_bpb|least_difference_bpb)": FIVE,
}
"""Paths of figures, and how people read them."""
DRAWN = {
    r"curves/.*": "curves",
    r"seeds/\d+/group_bytes/\w+": "widths of bars",
    r"seeds/\d+/attempts/\w+": "the dashboard's, for whom watches",
    r"seeds/\d+/recoveries": "a column where there are any",
    r"seeds/\d+/(last_step_began_s|quantize_seconds)": "a gate's figure, of the worst seed",
    r"seeds/\d+/(validation/.*|num_devices|exit_code)": "what was evaluated, in a gate's note",
    r"(created_at|collected_at)": "a date",
    r"exit_code": "the process's own",
    r".*/(count|baseline_count|family)": "how many there are",
    r"gates/.*/seed": "the seed of a worst figure",
    r"policy/baseline/.*": "the baseline's own figures",
    r"comparison/(alpha|margin|candidate_bpb|outcome/margin|outcome/difference)": "said in words",
    r"comparison/outcome/half_width": "an interval's ends",
    r"comparison/seeds_to_settle": "said where it is not settled",
    r"power/alpha": "the policy's",
}
"""Paths of the other numbers, and what becomes of them."""


@pytest.fixture
def experiment(lab: Lab) -> Experiment:
    baseline = known("old", 1.9, 1.92, 1.95)
    policy = Policy(margin=Margin(amount=0.012, unit="bpb"), alpha=0.02, baseline=baseline)
    stages = [s for seed in SEEDS for s in train_and_eval(seed, "pass")]
    found = lab.register(stages, policy=policy.plain())
    lab.experiments.clear()
    for seed in SEEDS:
        finish(found, seed)
        sizes = {"model_bytes": 612, "code_bytes": 297, "total_bytes": 909}
        sizes["group_bytes"] = {"attention": 300, "mlp": 200, "embeddings": 100, "other": 12}
        write_json(found.paths.artifact_sizes(seed), sizes)
    return found


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number below a value, with the way to it; rules go by their names."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            name = item["name"] if path == "/gates" else index
            yield from numbers(item, f"{path}/{name}")
    else:
        yield path[1:], value


def forms(experiment: Experiment) -> dict[str, str]:
    report = report_of(experiment)
    write_results(report, experiment.paths)
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(tables.draw(report))
    output = console.file
    assert isinstance(output, io.StringIO)
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", experiment.paths.report_html.read_text())
    return {
        "terminal": output.getvalue(),
        "markdown": experiment.paths.report_md.read_text(),
        "html": html.unescape(page),
    }


def lacking(stored: dict[str, Any], texts: dict[str, str]) -> tuple[set[str], list[str]]:
    """Parts of the JSON whose figures were looked for, and where which is missing."""
    looked, missing = set(), []
    for path, value in numbers(stored):
        ways = [show for pattern, show in SHOWN.items() if re.fullmatch(pattern, path)]
        drawn = [pattern for pattern in DRAWN if re.fullmatch(pattern, path)]
        assert len(ways) + len(drawn) == 1, f"{path} = {value} is in no list, or in several"
        for show in ways:
            looked.add(path.partition("/")[0])
            whole = rf"(?<![\d.,]){re.escape(show(value))}(?![\d]|[.,]\d)"
            lacks = [name for name, text in texts.items() if not re.search(whole, text)]
            missing += [f"{path}: {show(value)} is not in {name}" for name in lacks]
    return looked, missing


def test_every_figure_of_the_json_stands_in_the_other_forms(experiment: Experiment) -> None:
    texts = forms(experiment)
    stored = json.loads(experiment.paths.report_json.read_text())
    looked, missing = lacking(stored, texts)
    assert missing == []
    assert looked == {"seeds", "summaries", "gates", "policy", "comparison", "power"}
    stored["summaries"]["ttt"]["val_bpb"]["mean"] += 0.0001  # another figure would be noticed
    assert len(lacking(stored, texts)[1]) == len(texts)
