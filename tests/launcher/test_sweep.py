"""Settings crossed with seeds: registered whole before the first job, ranked with Holm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, train_and_eval
from test_report import SEEDS, finish

from launcher.cli import main
from launcher.errors import LaunchError
from launcher.experiment import Experiment, list_experiments
from launcher.reporting.policy import Policy
from launcher.reporting.units import Margin
from launcher.sweep import Sweep, Variant, find_sweep, parse_sweep

SMOKE = ("smoke", "--seeds", "1,2", "--sweep", "ttt.lr=0.01,0.02")


def test_several_settings_are_crossed_and_lists_stay_whole() -> None:
    assert parse_sweep(["ttt.lr=0.1,0.2", "model.ve_layers=[1,2],[2]"]) == [
        ("ttt.lr=0.1", "model.ve_layers=[1,2]"),
        ("ttt.lr=0.1", "model.ve_layers=[2]"),
        ("ttt.lr=0.2", "model.ve_layers=[1,2]"),
        ("ttt.lr=0.2", "model.ve_layers=[2]"),
    ]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["ttt.lr=0.1"], "two or more"),
        (["ttt.lr=0.1,0.1"], "two or more"),
        (["ttt.lr=0.1,0.2", "ttt.lr=0.3,0.4"], "twice"),
        (["ttt.lr=" + ",".join(map(str, range(65)))], "more than 64"),
    ],
)
def test_what_is_no_sweep_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(LaunchError, match=reason):
        parse_sweep(texts)


def test_everything_is_registered_before_the_first_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def submit(experiment: Experiment, executor: object) -> tuple[()]:
        seen.append((len(list_experiments(tmp_path)), find_sweep(tmp_path, None)))
        return ()

    monkeypatch.setattr("launcher.submit.submit_missing", submit)
    assert main([*SMOKE, "--runs", str(tmp_path), "--detach", "--json"]) == 0
    assert [count for count, _ in seen] == [2, 2]
    sweep = seen[0][1]
    assert [variant.label for variant in sweep.variants] == ["ttt.lr=0.01", "ttt.lr=0.02"]
    jobs = [Experiment.open(tmp_path / v.experiment).job() for v in sweep.variants]
    assert [job.ttt.lr for job in jobs] == [0.01, 0.02]


def test_one_variant_that_cannot_run_stops_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("smoke", "--seeds", "1", "--sweep", "resources.cpus_per_task=1,4096")
    assert main([*words, "--runs", str(tmp_path)]) == 2
    assert "nothing was started" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_the_variants_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *SMOKE, "--runs", str(tmp_path)]) == 0
    assert "ttt.lr=0.02" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def swept(lab: Lab, shifts: dict[str, float], policy: Policy) -> Sweep:
    """A sweep that has run to its end."""
    variants = []
    for number, (label, shift) in enumerate(shifts.items(), start=1):
        stages = [s for seed in SEEDS for s in train_and_eval(seed, "pass")]
        experiment = lab.register(stages, name=f"sweep-1.{number}")
        for seed in SEEDS:
            finish(experiment, seed, shift=shift)
        variants.append(Variant(overrides=(label,), experiment=experiment.name))
    lab.experiments.clear()
    sweep = Sweep(name="sweep-1", created_at=1.0, policy=policy, variants=tuple(variants))
    sweep.write(lab.runs)
    return sweep


def test_variants_are_ranked_against_the_first_and_corrected(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = Policy(margin=Margin(amount=0.0, unit="bpb"))
    swept(lab, {"a.b=1": 0.0, "a.b=2": -0.05, "a.b=3": -0.5}, policy)
    assert main(["sweep", "--runs", str(lab.runs), "--json"]) == 0
    ranking = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [c["candidate"] for c in ranking["comparisons"]] == ["a.b=2", "a.b=3"]
    small, large = ranking["comparisons"]
    assert large["adjusted_p"] == pytest.approx(2 * large["outcome"]["p_value"])
    assert (small["passed"], large["passed"]) == (False, True)
    assert main(["sweep", "sweep-1", "--runs", str(lab.runs)]) == 0
    text = capsys.readouterr().out.partition("Configurations")[2]
    assert text.index("a.b=3") < text.index("a.b=2") < text.index("a.b=1")


def test_a_sweep_that_is_not_there_is_told_with_the_way_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--runs", str(tmp_path)]) == 2
    assert "--sweep ttt.lr" in capsys.readouterr().err
