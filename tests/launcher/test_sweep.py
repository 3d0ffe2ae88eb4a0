"""Settings crossed with seeds: one experiment, registered whole, ranked with Holm's correction."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import SMALL, FakeClock, Lab, python, stage
from rich.console import Console
from test_compare import known
from test_report import BPB, SEEDS, finish
from test_watching import StillExecutor, say, text_of

from golf.config import Job, job_from_sections, load_job
from golf.records import read_json, write_json
from launcher.checks import Verdict
from launcher.cli import main
from launcher.errors import LaunchError
from launcher.events import EventStream, plain_view
from launcher.executors.slurm_batches import Batch, make_batches
from launcher.experiment import Experiment, ExperimentPaths, Registration, list_experiments
from launcher.plan import make_plan
from launcher.reporting import sweep_tables
from launcher.reporting.policy import Policy
from launcher.reporting.units import Margin
from launcher.results import write_results
from launcher.stage import Stage
from launcher.states import State
from launcher.submit import keys_of, submit_missing
from launcher.sweep import Variant, make_variants, parse_sweep
from launcher.sweep_report import SweepReport, collect_sweep
from launcher.watch import Watcher

SMOKE = ("smoke", "--seeds", "1,2", "--sweep", "ttt.lr=0.01,0.02")
NO_MARGIN = Policy(margin=Margin(amount=0.0, unit="bpb"))


# ---- which variants ----


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
        (["ttt.lr=0.1,0.10"], "the same value twice"),
        (["ttt.lr=0.1,0.2", "ttt.lr=0.3,0.4"], "twice"),
        (["ttt.lr=" + ",".join(map(str, range(65)))], "more than 64"),
        (["container.image=a,b"], "run in one image"),
        (["model.vocab_size=512,600"], "prepared once for all"),
    ],
)
def test_what_is_no_sweep_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(LaunchError, match=reason):
        variants(*texts)


def variants(*texts: str, **sections: dict[str, Any]) -> tuple[Variant, ...]:
    base = {"data": {"source": "embedded"}, "resources": dataclasses.asdict(SMALL)} | sections
    return make_variants(parse_sweep(texts), lambda swept: job_from_sections(base, swept))


@pytest.mark.parametrize(
    ("texts", "keys"),
    [
        (["ttt.lr=0.1,0.2"], ["lr=0.1", "lr=0.2"]),
        (
            ["optim.matrix_lr=1e-3,2e-3", "ttt.epochs=1,2"],
            [f"matrix_lr={lr}e-3,epochs={n}" for lr in (1, 2) for n in (1, 2)],
        ),
        (["model.ve_layers=[1,2],[2]"], ["ve_layers=-1-2", "ve_layers=-2"]),
        (['data.source="a/b","a b"'], ["variant-1", "variant-2"]),
        (
            [f"quantize.clip_percentiles=[1],[{', '.join(20 * ['0.5'])}]"],
            ["variant-1", "variant-2"],
        ),
    ],
)
def test_keys_are_short_and_can_be_folders(texts: list[str], keys: list[str]) -> None:
    assert [variant.key for variant in variants(*texts)] == keys


def test_variants_train_for_each_other_only_where_training_reads_nothing_that_differs() -> None:
    def trainers(*texts: str) -> list[str]:
        return [variant.trained_by for variant in variants(*texts)]

    assert trainers("ttt.lr=0.1,0.2") == ["lr=0.1", "lr=0.1"]
    assert trainers("evaluate.stride=64,32") == ["stride=64", "stride=64"]
    for setting in (
        "optim.matrix_lr=0.1,0.2",
        "quantize.scale_floor=1.0,0.5",
        "evaluate.eval_seq_len=1024,2048",
        "evaluate.tail=keep,cut",
        "averaging.ema_decay=0.5,0.6",
        "schedule.iterations=10,20",
        "resources.mem_gb=1,2",
    ):
        first, second = trainers(setting)
        assert first != second, setting
    crossed = trainers("optim.matrix_lr=0.1,0.2", "ttt.lr=1.0,2.0")
    assert [crossed.index(trainer) for trainer in crossed] == [0, 0, 2, 2]


def test_what_is_not_told_apart_as_training_is_read_by_no_command_of_the_train_stage() -> None:
    """A section added to the job must be thought of here: does training read it?"""
    told_apart = {"model", "data", "optim", "schedule", "averaging", "quantize", "resources"}
    in_part = {"evaluate", "budget"}
    after_training = {"ttt", "fanout"}
    one_for_all = {"job", "container"}
    sections = {field.name for field in dataclasses.fields(Job)}
    assert sections == told_apart | in_part | after_training | one_for_all


# ---- plan and registration ----


def planned(tmp_path: Path, *texts: str) -> dict[str, Stage]:
    found = variants(*texts)
    paths = ExperimentPaths(tmp_path / "sweep-1")
    plan = make_plan(found[0].job, (7, 8), paths, None, found)
    return {stage.key: stage for stage in plan.stages}


def test_shared_training_is_one_stage_for_which_every_variants_evaluation_waits(
    tmp_path: Path,
) -> None:
    stages = planned(tmp_path, "ttt.lr=0.1,0.2")
    assert {key: stage.after for key, stage in stages.items()} == {
        "prepare": (),
        "lr=0.1/7/train": ("prepare",),
        "lr=0.1/7/eval": ("lr=0.1/7/train",),
        "lr=0.1/8/train": ("prepare",),
        "lr=0.1/8/eval": ("lr=0.1/8/train",),
        "lr=0.2/7/eval": ("lr=0.1/7/train",),
        "lr=0.2/8/eval": ("lr=0.1/8/train",),
    }
    sliding = " ".join(stages["lr=0.2/7/eval"].commands[0].argv)
    assert f"--config {tmp_path}/sweep-1/variants/lr=0.2/job.toml" in sliding
    assert "variants/lr=0.1/seeds/7/train/model.golf" in sliding
    assert "--out " + str(tmp_path / "sweep-1/variants/lr=0.2/seeds/7/eval/sliding") in sliding


def test_training_that_differs_is_done_for_each_variant(tmp_path: Path) -> None:
    stages = planned(tmp_path, "optim.matrix_lr=0.1,0.2")
    assert stages["matrix_lr=0.2/7/eval"].after == ("matrix_lr=0.2/7/train",)
    assert sum(stage.kind == "train" for stage in stages.values()) == 4


def test_everything_is_registered_before_the_first_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Experiment] = []

    def submit(experiment: Experiment, executor: object) -> tuple[()]:
        seen.append(Experiment.open(experiment.paths.root))
        return ()

    monkeypatch.setattr("launcher.submit.submit_missing", submit)
    assert main([*SMOKE, "--runs", str(tmp_path), "--detach", "--json"]) == 0
    (experiment,) = seen
    assert [e.name for e in list_experiments(tmp_path)] == [experiment.name]
    assert [runs.overrides for runs in experiment.runs] == [("ttt.lr=0.01",), ("ttt.lr=0.02",)]
    assert [runs.job().ttt.lr for runs in experiment.runs] == [0.01, 0.02]
    assert [load_job(r.paths.job) for r in experiment.runs] == [r.job() for r in experiment.runs]
    scripts = [runs.paths.script.read_bytes() for runs in experiment.runs]
    assert len(set(scripts)) == 2
    assert experiment.registry["policy"]["test"] == "welch"
    assert all(experiment.paths.stage(s.key).spec.exists() for s in experiment.stages)


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
    assert main(["plan", *SMOKE, "--runs", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [v["key"] for v in answer["variants"]] == ["lr=0.01", "lr=0.02"]
    (sweep,) = [check for check in answer["checks"] if check["name"] == "sweep"]
    assert sweep["verdict"] == Verdict.OK
    assert "1 of them trained: lr=0.01, lr=0.02" in sweep["figure"]
    (power,) = [check for check in answer["checks"] if check["name"] == "significance"]
    assert "every variant against the first" in power["figure"]
    assert "--test paired sees smaller differences" in power["figure"]
    assert list(tmp_path.iterdir()) == []


# ---- a sweep under way ----


Swept = Callable[..., Experiment]


@pytest.fixture
def swept(lab: Lab) -> Swept:
    """Registers a sweep over two seeds of which nothing has run."""

    def make(*texts: str, policy: Policy = NO_MARGIN, code: str = "pass") -> Experiment:
        budget = {"artifact_bytes": 1_000_000, "train_seconds": 60, "eval_seconds": 60}
        found = variants(*texts, budget=budget)
        paths = ExperimentPaths(lab.runs / "sweep-1")
        plan = make_plan(found[0].job, SEEDS, paths, lab.runs, found)
        stages = tuple(dataclasses.replace(s, commands=(python(code),)) for s in plan.stages)
        wanted = Registration(
            seeds=SEEDS, stages=stages, asked_job="x", variants=found, policy=policy.plain()
        )
        return Experiment.register(paths, found[0].job, wanted)

    return make


def test_stages_of_a_sweep_run_and_a_shared_failure_skips_every_variant_of_its_seed(
    lab: Lab, swept: Swept
) -> None:
    code = "import os, sys; sys.exit(9 if '/42/train' in os.environ['STAGE'] else 0)"
    experiment = swept("ttt.lr=0.1,0.2", code=code)
    for each in experiment.stages:
        spec = each.spec() | {"env": {"STAGE": each.key}}
        write_json(experiment.paths.stage(each.key).spec, spec)
    experiment = Experiment.open(experiment.paths.root)
    lab.experiments.append(experiment)
    submitted = submit_missing(experiment, lab.executor(experiment))
    assert len(submitted) == 9
    states = lab.wait_until_over(experiment)
    assert states.pop("lr=0.1/42/train") is State.FAILED
    skipped = {key for key, state in states.items() if state is State.SKIPPED}
    assert skipped == {"lr=0.1/42/eval", "lr=0.2/42/eval"}
    assert {state for key, state in states.items() if key not in skipped} == {State.DONE}


def test_one_view_shows_every_variant_and_tells_a_shared_stage_once(
    swept: Swept, clock: FakeClock
) -> None:
    experiment = swept("ttt.lr=0.1,0.2")
    now = clock.now()
    say(experiment, "lr=0.1/42/train", "failed", now, exit_code=1, reason="train exited with 1")
    say(experiment, "lr=0.1/7/train", "done", now)
    say(experiment, "lr=0.2/7/eval", "running", now, command="ttt")
    view = Watcher(experiment, StillExecutor(), clock).look()
    assert [seed.name for seed in view.seeds][:2] == ["lr=0.1 1337", "lr=0.1 42"]
    states = {seed.name: str(seed.state) for seed in view.seeds}
    assert states["lr=0.1 42"] == states["lr=0.2 42"] == "failed"
    assert (states["lr=0.1 7"], states["lr=0.2 7"]) == ("planned", "running")
    assert len(view.stages) == 9
    told = [e["stage"] for e in EventStream().take(view) if e["event"] == "state"]
    assert sorted(told) == sorted(stage.key for stage in experiment.stages)
    assert {seed["variant"] for seed in plain_view(view)["seeds"]} == {"lr=0.1", "lr=0.2"}
    text = text_of(view, width=100)
    assert "lr=0.2 1337" in text
    assert text.count("train exited with 1") == 3  # a row a variant, and the reason once below
    assert max(map(len, text.splitlines())) <= 100


def test_a_long_variant_is_cut_on_a_narrow_terminal_and_its_seed_is_not(
    swept: Swept, clock: FakeClock
) -> None:
    experiment = swept("optim.matrix_lr=0.1,0.2", "ttt.lr=1.0,2.0")
    view = Watcher(experiment, StillExecutor(), clock).look()
    lines = text_of(view, width=80, height=40).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("…_lr=0.1,lr=2.0 1337 · planned" in line for line in lines)
    assert len({line.partition(" · ")[0] for line in lines if "planned" in line}) == 13
    assert any("matrix_lr=0.1,lr=2.0 1337" in line for line in text_of(view, 120, 40).splitlines())


def test_cancel_and_logs_take_seeds_and_variants(swept: Swept) -> None:
    experiment = swept("ttt.lr=0.1,0.2")
    assert keys_of(experiment, [7]) == ["lr=0.1/7/train", "lr=0.1/7/eval", "lr=0.2/7/eval"]
    assert keys_of(experiment, [7], ["lr=0.2"]) == ["lr=0.2/7/eval"]
    with pytest.raises(LaunchError, match=r"no variant 'lr=0.3'.*lr=0.1, lr=0.2"):
        keys_of(experiment, None, ["lr=0.3"])


# ---- Slurm's arrays ----


def batches(tmp_path: Path, *texts: str, array_from: int = 3) -> list[Batch]:
    found = variants(*texts)
    paths = ExperimentPaths(tmp_path / "sweep-1")
    plan = make_plan(found[0].job, SEEDS, paths, None, found)
    return list(make_batches(paths, plan.stages, array_from, 1001))


def needs_of(batch: Batch) -> list[str]:
    return [key for stage in batch.stages for key in stage.after]


def test_evaluations_that_share_their_training_are_an_array_for_each_variant(
    tmp_path: Path,
) -> None:
    _, train, *evals = batches(tmp_path, "ttt.lr=0.1,0.2")
    assert (train.label, [batch.label for batch in evals]) == (
        "train-lr=0.1",
        ["eval-lr=0.1", "eval-lr=0.2"],
    )
    for batch in evals:
        assert needs_of(batch) == [stage.key for stage in train.stages]


def test_variants_that_train_are_one_array_whose_tasks_correspond(tmp_path: Path) -> None:
    _, train, evaluation = batches(tmp_path, "optim.matrix_lr=0.1,0.2")
    assert (train.label, evaluation.label) == ("train", "eval")
    assert needs_of(evaluation) == [stage.key for stage in train.stages]


def test_an_array_that_could_not_correspond_is_jobs_of_their_own(tmp_path: Path) -> None:
    crossed = batches(tmp_path, "optim.matrix_lr=0.1,0.2", "ttt.lr=1.0,2.0", "ttt.epochs=1,2")
    (train,) = [batch for batch in crossed if batch.stages[0].kind == "train"]
    assert len(train.stages) == 6
    for batch in crossed:
        if batch.is_array and batch.stages[0].kind == "eval":
            assert needs_of(batch) == [stage.key for stage in train.stages]
    stages = [stage.key for batch in crossed for stage in batch.stages]
    assert len(stages) == len(set(stages)) == 1 + 6 + 24


def test_jobs_of_different_sizes_are_never_one_array(tmp_path: Path) -> None:
    for batch in batches(tmp_path, "resources.mem_gb=1,2"):
        assert len({stage.resources for stage in batch.stages}) == 1


def test_single_jobs_bear_the_names_of_variant_and_seed(tmp_path: Path) -> None:
    labels = [batch.label for batch in batches(tmp_path, "ttt.lr=0.1,0.2", array_from=99)]
    assert "eval-lr=0.2-1337" in labels
    plain = [stage(7, kind) for kind in ("train", "eval")]
    paths = ExperimentPaths(tmp_path / "x-1")
    assert [b.label for b in make_batches(paths, plain, 9, 1001)] == ["train-7", "eval-7"]


# ---- the report ----


def finish_runs(experiment: Experiment, shifts: dict[str, float]) -> None:
    """Leave the files of variants that ran to their end, their BPB shifted."""
    for runs in experiment.runs:
        if runs.variant in shifts:
            for seed in SEEDS:
                finish(experiment, seed, runs=runs, shift=shifts[runs.variant])


def report_of(experiment: Experiment) -> SweepReport:
    return collect_sweep(experiment, StillExecutor())


def test_variants_are_ranked_against_the_first_and_corrected(swept: Swept) -> None:
    experiment = swept("ttt.lr=1.0,2.0,3.0")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=2.0": -0.05, "lr=3.0": -0.5})
    report = report_of(experiment)
    assert [place.variant for place in report.ranking] == ["lr=3.0", "lr=2.0", "lr=1.0"]
    large, small, reference = (place.comparison for place in report.ranking)
    assert reference is None
    assert large is not None
    assert small is not None
    assert large.outcome is not None
    assert large.outcome.p_value is not None
    assert large.adjusted_p == pytest.approx(2 * large.outcome.p_value)
    assert (small.passed, large.passed) == (False, True)
    assert report.verdict.startswith("9 of 9 runs of 3 variants done · best lr=3.0: TTT 0.6200")
    assert "than lr=1.0: shown" in report.verdict
    assert report.exit_code == 0


def test_a_variant_that_did_badly_or_never_ran_stays_in_table_and_family(swept: Swept) -> None:
    experiment = swept("ttt.lr=1.0,2.0,3.0")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=3.0": -0.5})
    report = report_of(experiment)
    assert [place.variant for place in report.ranking] == ["lr=3.0", "lr=1.0", "lr=2.0"]
    best, missing = report.ranking[0].comparison, report.ranking[2].comparison
    assert best is not None
    assert missing is not None
    assert (best.family, missing.passed) == (2, None)
    assert report.exit_code == 4


@pytest.mark.parametrize(("bpb", "code"), [(1.5, 0), (0.5, 3)])
def test_a_registered_baseline_must_be_beaten_by_one_variant(
    bpb: float, code: int, swept: Swept
) -> None:
    old = known("old", bpb, bpb + 0.01, bpb + 0.02)
    experiment = swept("ttt.lr=1.0,2.0", policy=dataclasses.replace(NO_MARGIN, baseline=old))
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=2.0": -0.01})
    report = report_of(experiment)
    assert report.reference == "old"
    assert all(place.comparison is not None for place in report.ranking)
    assert report.exit_code == code


def test_the_worst_run_of_all_variants_is_held_against_each_rule(swept: Swept) -> None:
    experiment = swept("ttt.lr=1.0,2.0")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=2.0": 0.0})
    finish(experiment, 42, runs=experiment.runs[1], seconds=61.0)
    report = report_of(experiment)
    gates = {gate.name: gate for gate in report.gates}
    broken = gates["TTT evaluation"]
    assert (broken.passed, broken.variant, broken.seed, broken.figure) == (False, "lr=2.0", 42, 61)
    assert broken.evidence == "variants/lr=2.0/seeds/42/eval/ttt/result.json"
    assert gates["registered seeds ended"].limit == 6
    assert report.exit_code == 3
    assert "fails: TTT evaluation (lr=2.0)" in report.verdict
    for gate in report.gates:
        if gate.passed is not None:
            assert list(experiment.paths.root.glob(gate.evidence)), gate


def test_the_runs_of_all_variants_are_one_table_with_the_same_columns(swept: Swept) -> None:
    experiment = swept("ttt.lr=1.0,2.0")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=2.0": 0.0})
    result = experiment.runs[1].paths.evaluation(7, "ttt").result
    write_json(result, (read_json(result) or {}) | {"recoveries": [{"chunk": 1}]})
    table = sweep_tables.runs(report_of(experiment))
    assert {len(row) for row in table.rows} == {len(table.header)}
    recovered = {row[0]: row[table.header.index("recovered")] for row in table.rows}
    assert recovered.pop("lr=2.0 7") == "1"
    assert set(recovered.values()) == {"0"}


def test_a_shared_model_is_counted_with_the_code_of_each_variants_own_job(swept: Swept) -> None:
    experiment = swept("ttt.lr=1.0,0.123456789")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=0.123456789": 0.0})
    owner, sharer = report_of(experiment).variants
    size = experiment.runs[1].paths.script.stat().st_size
    assert {seed.code_bytes for seed in owner.seeds} == {300}
    assert {seed.code_bytes for seed in sharer.seeds} == {size}
    assert {seed.total_bytes for seed in sharer.seeds} == {600 + size}


def test_all_forms_of_the_report_hold_the_ranking(swept: Swept) -> None:
    experiment = swept("ttt.lr=1.0,2.0")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=2.0": -0.05})
    report = report_of(experiment)
    write_results(report, experiment.paths)
    stored = json.loads(experiment.paths.report_json.read_text())
    assert stored["schema"] == "golf-launch/sweep-report/1"
    assert set(stored) == {field.name for field in dataclasses.fields(SweepReport)}
    page = experiment.paths.report_html.read_text()
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(sweep_tables.draw(report))
    output = console.file
    assert isinstance(output, io.StringIO)
    assert max(len(line.rstrip()) for line in output.getvalue().splitlines()) <= 80
    for row in sweep_tables.ranking(report).rows:
        assert f"| {' | '.join(row)} |" in experiment.paths.report_md.read_text()
        assert all(cell in page for cell in row)
    for place in stored["ranking"]:
        assert f"{place['bpb']['mean']:.5f}" in output.getvalue()


def test_the_sweeps_json_fields_are_documented() -> None:
    import launcher.sweep_report

    text = launcher.sweep_report.__doc__ or ""
    fields = dataclasses.fields(SweepReport)
    assert [f.name for f in fields if f"`{f.name}`" not in text] == []


# ---- a variant by its name ----


def test_a_variant_is_named_after_its_sweep_in_compare_and_submission(
    lab: Lab, swept: Swept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = swept("ttt.lr=1.0,2.0")
    finish_runs(experiment, {"lr=1.0": 0.0, "lr=2.0": -0.05})
    runs = ("--runs", str(lab.runs))
    folder = str(experiment.runs[0].paths.root)
    assert main(["compare", "sweep-1/lr=2.0", folder, "--margin", "0bpb", *runs, "--json"]) == 3
    (compared,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert compared["difference_bpb"] == pytest.approx(0.05)
    assert main(["compare", "sweep-1", "sweep-1/lr=2.0", *runs]) == 2
    assert "name one of its variants, as in sweep-1/lr=1.0" in capsys.readouterr().err
    out = tmp_path / "records"
    assert main(["submission", "sweep-1/lr=2.0", "--out", str(out), *runs]) == 0
    content = json.loads((out / "submission.json").read_text())
    assert content["val_bpb"] == pytest.approx(sum(BPB.values()) / 3 - 0.05)
    assert content["bytes_code"] == (out / "train_gpt.py").stat().st_size
    assert list(content["sweep"]) == ["lr=2.0", "lr=1.0"]  # what else was tried is told
    assert "| lr=1.0 | reference |" in (out / "README.md").read_text()
