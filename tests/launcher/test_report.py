"""The report's numbers, by hand, and its exit codes."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from typing import Any

import pytest
from lab import FakeClock, Lab, train_and_eval
from rich.console import Console
from test_watching import StillExecutor, say

from golf.records import write_json
from launcher.experiment import Experiment, Runs
from launcher.report import Report, collect
from launcher.reporting import tables
from launcher.results import write_results
from launcher.significance import summarize

SEEDS = (1337, 42, 7)
BPB = {1337: 1.10, 42: 1.12, 7: 1.14}


@pytest.fixture
def experiment(lab: Lab) -> Experiment:
    found = lab.register([s for seed in SEEDS for s in train_and_eval(seed, "pass")])
    lab.experiments.clear()
    return found


def finish(experiment: Experiment, seed: int, **changes: Any) -> None:
    """Leave the files of a seed that ran to its end."""
    runs: Runs = changes.pop("runs", None) or experiment.runs[0]
    paths, bpb = runs.paths, BPB[seed] + changes.pop("shift", 0.0)
    keys = {stage.kind: stage.key for stage in runs.stages_of(seed)}
    figures = {"total_bytes": 900, "train_seconds": 50.0, "seconds": 40.0, "verify": 0} | changes
    evaluated = {"schedule": "strict", "world_size": 1} | changes.get("ttt", {})

    def score(offset: float, **more: Any) -> dict[str, Any]:
        return {"val_loss": bpb + offset + 0.8, "val_bpb": bpb + offset, **more}

    train = score(0.03, steps=100, train_seconds=figures["train_seconds"], device="cpu")
    write_json(paths.train(seed).result, train)
    last = figures["train_seconds"]
    steps = [
        {"step": step, "elapsed_ms": 1000 * at, "train_loss": 2.0, "lr_scale": 0.5, "tokens": 9}
        for step, at in ((99, last - 0.6), (100, last))
    ]
    paths.train(seed).metrics.write_text("".join(json.dumps(step) + "\n" for step in steps))
    write_json(
        paths.artifact_sizes(seed),
        {"model_bytes": 600, "code_bytes": 300, "total_bytes": figures["total_bytes"]},
    )
    write_json(paths.round_trip(seed).result, score(0.02))
    write_json(paths.evaluation(seed, "sliding").result, score(0.01))
    ttt = score(0.0, seconds=figures["seconds"], attention="sdpa", **evaluated)
    ttt |= {"tokens": 300, "bytes": 700}
    write_json(paths.evaluation(seed, "ttt").result, ttt)
    for protocol, nats in (("sliding", 1.2), ("ttt", 1.1)):
        ledger = [
            {
                "kind": "score",
                "chunk": chunk,
                "start": start,
                "end": end,
                "nll_sum": nats * (end - start),
                "bytes": (end - start) * 7 // 3,
            }
            for chunk, (start, end) in enumerate(figures.get("ranges", ((0, 150), (150, 300))))
        ][:: -1 if evaluated["schedule"] == "pipelined" else 1]
        journal = paths.evaluation(seed, protocol).journal(protocol)
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text("".join(json.dumps(line) + "\n" for line in ledger))
    say(experiment, keys["train"], "done", 1e6, exit_code=0)
    code = figures["verify"]
    verify = {"name": "verify", "exit_code": code, "seconds": 0.1}
    state = "done" if code == 0 else "failed"
    words = {"exit_code": code, "command": "verify", "commands": [verify]}
    say(experiment, keys["eval"], state, 1e6, **words)


def report_of(experiment: Experiment) -> Report:
    return collect(experiment, StillExecutor())


def gate(report: Report, name: str) -> bool | None:
    return next(gate.passed for gate in report.gates if gate.name.startswith(name))


def test_mean_deviation_and_interval_of_three_seeds_are_those_computed_by_hand() -> None:
    summary = summarize([1.10, 1.12, 1.14])
    assert summary is not None
    assert summary.mean == pytest.approx(1.12)
    assert summary.std == pytest.approx(0.02)
    # Student's t at 97.5% with 2 degrees of freedom is 4.302653.
    assert summary.half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)


def test_one_seed_gives_no_interval_and_none_gives_nothing() -> None:
    single = summarize([1.1])
    assert single is not None
    assert (single.count, single.std, single.half_width) == (1, None, None)
    assert summarize([]) is None


def test_a_complete_experiment_within_its_budgets_is_reported_whole(experiment: Experiment) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    report = report_of(experiment)
    assert report.exit_code == 0
    assert {g.name for g in report.gates if g.passed is not True} == {"quantization"}
    assert report.verdict == (
        "3 of 3 seeds done · TTT 1.1200 ± 0.0497 (95%) BPB · within every budget, ledgers verified"
    )
    means = {
        column: (summary["val_loss"], summary["val_bpb"])
        for column, summary in report.summaries.items()
    }
    for column, offset in (("post_ema", 0.03), ("round_trip", 0.02), ("sliding", 0.01), ("ttt", 0)):
        loss, bpb = means[column]
        assert loss is not None
        assert bpb is not None
        assert loss.mean == pytest.approx(1.92 + offset)
        assert bpb.mean == pytest.approx(1.12 + offset)
        assert bpb.std == pytest.approx(0.02)


def test_the_worst_seed_and_not_the_mean_is_held_against_each_limit(experiment: Experiment) -> None:
    finish(experiment, 1337)
    finish(experiment, 42, total_bytes=1001)
    finish(experiment, 7, seconds=60.5)
    report = report_of(experiment)
    assert report.exit_code == 3
    assert gate(report, "artifact") is False
    assert gate(report, "TTT evaluation") is False
    assert gate(report, "last training step") is True
    assert {g.name: g.seed for g in report.gates if g.passed is False} == {
        "artifact with its code": 42,
        "TTT evaluation": 7,
    }
    assert "fails: artifact with its code, TTT evaluation" in report.verdict


@pytest.mark.parametrize(("seconds", "passed"), [(60.5, True), (60.7, False)])
def test_the_training_step_that_uses_up_the_time_may_end_after_it(
    seconds: float, passed: bool, experiment: Experiment
) -> None:
    for seed in SEEDS:
        finish(experiment, seed, train_seconds=seconds)  # of 60 s, in 100 steps
    report = report_of(experiment)
    assert gate(report, "last training step") is passed
    assert report.exit_code == (0 if passed else 3)


def test_a_violated_ledger_fails_the_gate_and_its_seed_counts_in_no_mean(
    experiment: Experiment,
) -> None:
    finish(experiment, 1337)
    finish(experiment, 42)
    finish(experiment, 7, verify=3)
    report = report_of(experiment)
    assert report.exit_code == 3
    assert gate(report, "ledgers") is False
    assert [seed.ledger for seed in report.seeds] == ["verified", "verified", "violated"]
    bpb = report.summaries["ttt"]["val_bpb"]
    assert bpb is not None
    assert (bpb.count, bpb.mean) == (2, pytest.approx(1.11))


def test_an_artifact_over_its_budget_that_ended_its_seed_is_a_failed_gate(
    experiment: Experiment,
) -> None:
    for seed in (1337, 42):
        finish(experiment, seed)
    sizes = {"model_bytes": 900, "code_bytes": 300, "total_bytes": 1200}
    write_json(experiment.paths.artifact_sizes(7), sizes)
    say(experiment, "7/train", "failed", 1e6, exit_code=3, reason="quantize exited with code 3")
    say(experiment, "7/eval", "skipped", 1e6)
    report = report_of(experiment)
    assert gate(report, "artifact") is False
    assert report.exit_code == 3


def test_every_registered_seed_is_reported_failed_ones_with_reason_and_log(
    experiment: Experiment,
) -> None:
    finish(experiment, 1337)
    say(experiment, "42/train", "failed", 1e6, exit_code=1, reason="train exited with code 1")
    say(experiment, "42/eval", "skipped", 1e6, reason="42/train failed")
    report = report_of(experiment)
    assert [str(seed.state) for seed in report.seeds] == ["done", "failed", "planned"]
    failed = report.seeds[1]
    assert failed.reason == "train exited with code 1"
    assert failed.log.endswith("seeds/42/train/log.txt")
    assert report.exit_code == 1
    assert report.verdict.startswith("1 of 3 seeds done · 42 failed, 7 planned · TTT 1.1000 BPB")


@pytest.mark.parametrize(
    ("state", "exit_code"), [("cancelled", 4), ("running", 4), ("failed", 1), ("lost", 1)]
)
def test_seeds_that_are_missing_and_seeds_that_failed_have_their_exit_codes(
    state: str, exit_code: int, experiment: Experiment, clock: FakeClock
) -> None:
    finish(experiment, 1337)
    finish(experiment, 42)
    say(experiment, "7/train", state, 4e9)
    assert report_of(experiment).exit_code == exit_code


def test_a_failed_preparation_is_a_failed_run(experiment: Experiment) -> None:
    for seed in SEEDS:
        say(experiment, f"{seed}/train", "failed", 1e6, exit_code=1)
    assert report_of(experiment).exit_code == 1


def test_json_markdown_and_terminal_show_the_same_numbers(experiment: Experiment) -> None:
    finish(experiment, 1337)
    finish(experiment, 42)
    report = report_of(experiment)
    write_results(report, experiment.paths)
    stored = json.loads(experiment.paths.report_json.read_text())
    assert stored["schema"] == "golf-launch/report/1"
    ttt = {"val_loss": pytest.approx(1.9), "val_bpb": 1.1}
    assert stored["seeds"][0]["scores"]["ttt"] == ttt
    assert stored["summaries"]["ttt"]["val_bpb"]["mean"] == pytest.approx(1.11)
    assert set(stored) == {field.name for field in dataclasses.fields(Report)}

    markdown = experiment.paths.report_md.read_text()
    assert markdown.splitlines()[2] == f"**{report.verdict}**"
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(tables.draw(report))
    output = console.file
    assert isinstance(output, io.StringIO)
    terminal = output.getvalue()
    assert terminal.startswith("✘ 2 of 3 seeds done")
    assert max(len(line.rstrip()) for line in terminal.splitlines()) <= 80
    for figures in (["1337", "1.9300", "1.1300"], ["mean", "1.9400", "1.1400"], ["900", "bytes"]):
        assert any(all(f in line for f in figures) for line in markdown.splitlines())
        assert any(all(f in line for f in figures) for line in terminal.splitlines())


def test_groups_of_workers_that_were_lost_and_survived_are_told(experiment: Experiment) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    assert "recovered" not in tables.runs([report_of(experiment)]).header
    path = experiment.paths.evaluation(42, "ttt").result
    write_json(path, json.loads(path.read_text()) | {"recoveries": [{"chunk": 3}, {"chunk": 5}]})
    table = tables.runs([report_of(experiment)])
    assert table.header[-1] == "recovered"
    assert [row[-1] for row in table.rows] == ["0", "2", "0"]


def test_a_ledger_that_scores_a_token_twice_or_leaves_one_out_fails_the_gate(
    experiment: Experiment,
) -> None:
    finish(experiment, 1337)
    finish(experiment, 42, ranges=((0, 150), (140, 300)))
    finish(experiment, 7, ranges=((0, 150), (150, 299)))
    report = report_of(experiment)
    assert [s.coverage for s in report.seeds] == ["exactly once", "violated", "violated"]
    assert gate(report, "each token scored") is False
    found = next(g for g in report.gates if g.name.startswith("each token scored"))
    assert (found.seed, found.evidence) == (42, "seeds/42/eval/ttt/ledger.jsonl")


def test_every_measured_rule_names_a_file_of_evidence_that_exists(experiment: Experiment) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    for found in report_of(experiment).gates:
        if found.passed is not None:
            assert list(experiment.paths.root.glob(found.evidence)), found


def test_the_json_reports_fields_are_documented() -> None:
    import launcher.report

    text = launcher.report.__doc__ or ""
    assert [f.name for f in dataclasses.fields(Report) if f"`{f.name}`" not in text] == []


def test_runs_off_one_node_of_eight_gpus_are_labelled(experiment: Experiment) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    assert report_of(experiment).outside_rule == ("no GPU, and the rule is one node of 8 H100s",)


def test_a_pipelined_evaluation_is_labelled_and_counts_every_worker(experiment: Experiment) -> None:
    """Its scores may be recorded in any order; a doubled range is still one too many."""
    pipelined = {"schedule": "pipelined", "world_size": 2, "num_scorers": 6}
    finish(experiment, 1337, ttt=pipelined)
    finish(experiment, 42, ttt=pipelined, ranges=((0, 150), (0, 150), (150, 300)))
    report = report_of(experiment)
    assert any("pipelined schedule: order is proved by" in words for words in report.outside_rule)
    assert [s.coverage for s in report.seeds[:2]] == ["exactly once", "violated"]
    assert report.seeds[0].num_devices == 8
