"""golf-launch as its user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, python, stage, train_and_eval, wait_until

from launcher.cli import COMMANDS, main
from launcher.commands.run import COMMAND_WORDS
from launcher.experiment import Experiment
from launcher.states import State
from launcher.submit import submit_missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs/` of the test, and cores that no other launch of this user takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # what it found before


def golf_launch(*words: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "launcher.cli", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def failure_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command is refused."""
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def output_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(words)
    return capsys.readouterr().out


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in text
    assert "130 detached" in text
    assert set(COMMAND_WORDS) == set(COMMANDS) - {"run"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([name, "--help"])
    assert leave.value.code == 0
    assert f"golf-launch {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["smoke"], "no seeds given; name them as in --seeds 1337,42,7"),
        (["smoke", "--seeds", "1,1"], "seed 1 is given twice"),
        (["smoke", "--seeds", "-5"], "seed -5 must lie between"),
        (["smoek", "--seeds", "1"], "did you mean smoke?"),
        (["statsu"], "did you mean golf-launch status?"),
        (["smoke", "--sede", "1"], "unknown argument '--sede'; did you mean --seeds?"),
        (["smoke", "--seeds", "1", "--set", "tt.lr=1"], "unknown section [tt]; did you mean ttt?"),
        (["smoke", "--seeds", "1", "--set", "ttt.rl=1"], "unknown key ttt.rl; did you mean lr?"),
        (
            ["smoke", "--seeds", "1", "--set", "ttt.lr=fast"],
            "ttt.lr='fast' must be a finite number",
        ),
        (["smoke", "--seeds", "1", "--set", "nonsense"], "must look like section.key=value"),
        (["status"], "there is no experiment in runs/"),
        (["attach", "nowhere"], "there is no experiment in runs/"),
        (["logs", "--lines", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_its_fix(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer in failure_of(capsys, *words)


def test_a_job_that_cannot_run_here_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["record", "--seeds", "1337,42,7"]) == 2
    told = capsys.readouterr()
    assert "nothing was started; see above:" in told.err
    assert "golf-launch smoke --seeds" in " ".join(told.out.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["plan", "smoke"], ["smoke", "--dry-run"]])
def test_a_plan_shows_the_very_commands_and_starts_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(capsys, *words, "--seeds", "1337", "42")
    assert "golf train --config $RUN/job.toml" in text
    assert not (tmp_path / "runs").exists()


def test_a_plan_as_json_spells_every_stage_out(capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(output_of(capsys, "plan", "smoke", "--seeds", "1,2", "--json"))
    keys = [stage["key"] for stage in plan["stages"]]
    assert keys == ["prepare", "1/train", "1/eval", "2/train", "2/eval"]
    verdicts = {c["verdict"] for c in plan["checks"] if c["name"] != "Slurm"}
    assert verdicts == {"ok"}


def test_an_experiment_is_found_as_the_newest_by_part_of_its_name_and_by_folder(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("smoke-a", "smoke-b"):
        lab.register([stage(1, "train", python("pass"))], name)
    found = [
        json.loads(output_of(capsys, "status", *words, "--json"))["experiment"]
        for words in ([], ["e-a"], ["runs/smoke-a"])
    ]
    assert found == ["smoke-b", "smoke-a", "smoke-a"]
    assert "fits several: smoke-a, smoke-b" in failure_of(capsys, "status", "smoke")
    assert "did you mean smoke-b?" in failure_of(capsys, "status", "smoke-bb")
    names = [row["name"] for row in json.loads(output_of(capsys, "list", "--json"))]
    assert names == ["smoke-a", "smoke-b"]


def test_watching_ends_with_the_report_and_its_exit_code(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = lab.register(train_and_eval(1, "print('hello'); raise SystemExit(1)"))
    assert main(["resume", experiment.name]) == 1
    text = capsys.readouterr().out
    assert "1/train      failed  work exited with code 1" in text
    assert "| hello" in text
    assert "✘ 0 of 1 seed done · 1 failed" in text
    assert experiment.paths.report_json.exists()
    assert main(["report"]) == main(["collect"]) == 1
    assert "hello" in output_of(capsys, "logs", "--seed", "1", "-n", "5")
    assert "has no seed 9; it has 1" in failure_of(capsys, "logs", "--seed", "9")


def test_json_events_end_with_the_report(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.register(train_and_eval(1, "pass"))
    main(["resume", "--json"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0] == {
        "event": "submitted", "experiment": "test-1", "stages": ["1/train", "1/eval"],
    }  # fmt: skip
    assert events[-1]["event"] == "report"
    states = [e["state"] for e in events if e["event"] == "state" and e["stage"] == "1/train"]
    assert states[-1] == "done"


def test_ctrl_c_detaches_and_attach_picks_the_running_jobs_up_again(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"
    experiment = lab.register(train_and_eval(1, waits))
    process = golf_launch("resume", start_new_session=True)
    lab.wait_for(experiment, "1/train", State.RUNNING)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the whole group
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "detached; the jobs go on. Back with:  golf-launch attach test-1" in told
    assert lab.states(experiment)["1/train"] is State.RUNNING

    process = golf_launch("attach")
    go.touch()
    told, _ = process.communicate(timeout=60)
    assert "1/eval       done" in told
    assert process.returncode == 0


def test_a_detached_start_returns_at_once_and_cancel_ends_it(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = lab.register(train_and_eval(1, "import time; time.sleep(60)"))
    assert main(["resume", "--detach"]) == 0
    assert "watch with:  golf-launch attach test-1" in capsys.readouterr().out
    lab.wait_for(experiment, "1/train", State.RUNNING)
    assert "1/train  cancelled: stopped by SIGTERM" in output_of(capsys, "cancel", "--seed", "1")
    assert "nothing of test-1 was under way" in output_of(capsys, "cancel")
    assert main(["collect"]) == 4


def test_followed_logs_show_each_line_with_its_stage_to_the_end(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = lab.register(train_and_eval(1, "print('first')", "print('second')"))
    submit_missing(experiment, lab.executor(experiment))
    assert main(["logs", "-f"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1/train  first" in lines
    assert "1/eval  second" in lines


def test_output_that_nobody_reads_any_more_is_no_error(lab: Lab) -> None:
    experiment = lab.register([stage(1, "train", python("pass"))])
    log = experiment.paths.stage("1/train").log
    log.write_text("many lines\n" * 100_000)
    process = golf_launch("logs", stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    wait_until(lambda: process.poll() is not None, "the command to end")
    process.stderr.close()


def test_a_folder_of_another_version_is_refused(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment: Experiment = lab.register([stage(1, "train", python("pass"))])
    registry = json.loads(experiment.paths.registry.read_text()) | {"schema": 99}
    experiment.paths.registry.write_text(json.dumps(registry))
    lab.experiments.clear()
    assert "written by another version of golf-launch" in failure_of(capsys, "status", "test-1")
