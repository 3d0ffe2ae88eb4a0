"""golf-launch compare, the shipped records, and the policy registered with an experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, train_and_eval
from test_report import SEEDS, finish, report_of

from launcher.checks import Check, Verdict
from launcher.cli import main
from launcher.errors import LaunchError
from launcher.experiment import Experiment, ExperimentPaths
from launcher.plan import make_plan
from launcher.reporting.baselines import baselines, find_baseline, median_std_bpb
from launcher.reporting.comparison import judge
from launcher.reporting.forecast import forecast
from launcher.reporting.policy import Policy
from launcher.reporting.power import alike, least_difference
from launcher.reporting.scores import Scores, SeedScore
from launcher.reporting.units import Margin, ValidationSet
from launcher.spec import find_job, shipped_jobs

NO_MARGIN = Margin(amount=0.0, unit="bpb")


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["compare", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("new", "old", "p_value"), [("pr1514", "1493", 0.020), ("PR #1769", "pr1736", 0.063)]
)
def test_published_p_values_come_from_the_shipped_records(
    new: str, old: str, p_value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = compared(capsys, new, old, "--margin", "0bpb", "--alpha", "0.05")
    (comparison,) = answer["comparisons"]
    assert comparison["outcome"]["p_value"] == pytest.approx(p_value, abs=0.0005)
    assert comparison["passed"] is (p_value < 0.05)
    assert code == (0 if p_value < 0.05 else 3)


def test_the_rules_margin_is_told_in_the_records_own_bits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, answer = compared(capsys, "pr1514", "pr1493")
    (comparison,) = answer["comparisons"]
    assert comparison["margin"] == pytest.approx(0.001936, abs=1e-6)
    assert comparison["difference_nats"] == pytest.approx(0.00302, abs=1e-5)
    assert code == 3


def test_several_comparisons_are_corrected_together(capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = compared(capsys, "pr549", "pr414", "pr1514", "--margin", "0bpb")
    first, second = answer["comparisons"]
    assert first["adjusted_p"] == pytest.approx(2 * first["outcome"]["p_value"])
    assert second["adjusted_p"] == pytest.approx(second["outcome"]["p_value"])
    _, answer = compared(capsys, "pr549", "pr1514", "--baseline", "pr414")
    assert {c["baseline"] for c in answer["comparisons"]} == {"PR 414"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["pr1514", "pr549", "--unit", "nats"], "another amount for each"),
        (["pr1514"], "takes two or more"),
        (["pr1514", "pr9999"], "there is no experiment"),
        (["pr1514", "2026-04"], "fits several"),
        (["pr1514", "pr1493", "--test", "normal"], "must be one of welch"),
        (["pr1514", "pr1493", "--alpha", "2"], "between 0 and 1"),
        (["Loader_FullGPTQ", "pr1493"], "needs its seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words]) == 2
    assert reason in capsys.readouterr().err


def test_a_published_mean_gives_no_verdict_but_to_the_one_sample_test(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "pr1514", "Loader_FullGPTQ"]) == 3
    assert "no verdict" in capsys.readouterr().out
    assert main(["compare", "pr1514", "Loader_FullGPTQ", "--test", "one-sample"]) == 0


def test_every_shipped_record_reads_and_is_no_job() -> None:
    assert len(baselines()) >= 40
    assert sum(len(b.scores.seeds) >= 2 for b in baselines()) >= 20
    assert all(b.scores.mean("bpb") is not None for b in baselines())
    assert 0.0003 < median_std_bpb() < 0.001
    assert "baselines" not in shipped_jobs()
    assert find_baseline("no such record") is None


def test_pairing_reckons_with_the_spread_of_the_differences() -> None:
    """Seeds that move together show more by pairs than their own spread lets expect."""
    old, new = known("old", 1.20, 1.25, 1.30), known("new", 1.19, 1.2402, 1.29)
    (paired,) = judge([(new, old)], Policy(test="paired", margin=NO_MARGIN))
    (welch,) = judge([(new, old)], Policy(margin=NO_MARGIN))
    assert (paired.passed, welch.passed) == (True, False)
    assert paired.least_difference is not None
    assert welch.least_difference is not None
    assert paired.least_difference < 0.01 < welch.least_difference


def known(name: str, *bpb: float, text: str = "a text of 700 bytes") -> Scores:
    return Scores(
        name=name,
        kind="experiment",
        source="",
        seeds={seed: SeedScore(val_bpb=score) for seed, score in zip(SEEDS, bpb, strict=True)},
        validation=ValidationSet(text=text, tokens=300, bytes=700),
    )


def registered(lab: Lab, policy: Policy) -> Experiment:
    stages = [s for seed in SEEDS for s in train_and_eval(seed, "pass")]
    experiment = lab.register(stages, policy=policy.plain())
    lab.experiments.clear()
    for seed in SEEDS:
        finish(experiment, seed)
    return experiment


@pytest.mark.parametrize(("old", "code"), [((1.5, 1.52, 1.54), 0), ((1.11, 1.12, 1.16), 3)])
def test_the_registered_policy_decides_and_is_printed_with_the_verdict(
    old: tuple[float, ...], code: int, lab: Lab
) -> None:
    policy = Policy(margin=Margin(amount=0.01, unit="bpb"), baseline=known("old", *old))
    report = report_of(registered(lab, policy))
    assert report.comparison is not None
    assert report.comparison.passed is (code == 0)
    assert report.exit_code == code
    assert "than old: " + ("shown" if code == 0 else "not shown") in report.verdict
    assert report.policy == policy


def test_a_registered_baseline_on_another_text_is_refused_in_the_report(lab: Lab) -> None:
    baseline = known("old", 1.5, 1.52, 1.54, text="fineweb")
    report = report_of(registered(lab, Policy(baseline=baseline)))
    assert report.exit_code == 3
    assert "not comparable" in report.verdict


def test_experiments_compare_by_name(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = registered(lab, Policy())
    other = known("old", 1.5, 1.52, 1.54)
    submission = experiment.paths.root / "submission.json"
    submission.write_text(
        json.dumps({"seeds": {str(s): {"val_bpb": r.val_bpb} for s, r in other.seeds.items()}})
    )
    code, answer = compared(capsys, experiment.name, experiment.name, "--runs", str(lab.runs))
    assert code == 3
    assert answer["comparisons"][0]["difference_bpb"] == 0
    assert main(["compare", experiment.name, str(submission), "--runs", str(lab.runs)]) == 2


def significance(tmp_path: Path, seeds: tuple[int, ...], policy: Policy) -> Check:
    from golf.config import load_job

    plan = make_plan(load_job(find_job("smoke")), seeds, ExperimentPaths(tmp_path / "x-1"), None)
    return next(check for check in forecast(plan, policy) if check.name == "significance")


def test_the_plan_tells_what_so_many_seeds_can_show(tmp_path: Path) -> None:
    policy = Policy(margin=NO_MARGIN, baseline=known("old", 1.10, 1.12, 1.14))
    check = significance(tmp_path, SEEDS, policy)
    assert check.verdict is Verdict.OK
    assert "against old 3 seeds show, 4 times of 5" in check.figure
    assert significance(tmp_path, (1,), policy).verdict is Verdict.WARN


def test_a_plan_without_a_baseline_tells_it_by_the_published_spread(tmp_path: Path) -> None:
    check = significance(tmp_path, SEEDS, Policy())
    least = least_difference(alike(median_std_bpb(), 3, 0.01), 3)
    assert least is not None
    assert f"3 seeds against 3 show, 4 times of 5, a true difference of {least:.5f} BPB" in (
        check.figure
    )
    exact = significance(tmp_path, SEEDS, Policy(test="permutation"))
    assert "reckoned as by Welch's test" in exact.figure
    assert "one seed gives no verdict" in significance(tmp_path, (1,), Policy()).figure


def test_a_comparison_that_must_fail_is_refused_before_any_time_is_spent(tmp_path: Path) -> None:
    record = find_baseline("pr1493")
    assert record is not None
    check = significance(tmp_path, SEEDS, Policy(baseline=record.scores))
    assert check.verdict is Verdict.FAIL
    pairs = Policy(test="paired", baseline=known("old", 1.10, 1.12, 1.14))
    assert significance(tmp_path, (5, 6), pairs).fix == "--seeds 1337,42,7"


def test_a_policy_survives_its_passage_through_json() -> None:
    policy = Policy(test="paired", baseline=known("old", 1.1, 1.2, 1.3))
    assert Policy.read_back(json.loads(json.dumps(policy.plain()))) == policy
    with pytest.raises(LaunchError):
        Policy(unit="bits")  # type: ignore[arg-type]
