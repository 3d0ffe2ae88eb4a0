"""What a watcher makes of the files that runs leave, without any process."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lab import FakeClock, Lab, train_and_eval
from rich.console import Console

from golf.config import ScheduleConfig
from golf.records import TrainPaths, write_json
from launcher import dashboard, figures
from launcher.events import EventStream, plain_lines, plain_view
from launcher.executors.base import Silence
from launcher.experiment import Experiment
from launcher.progress import TrainProgress, thin
from launcher.states import Observation, State
from launcher.tails import JsonTail, TextTail, tail_lines
from launcher.watch import View, Watcher


class StillExecutor:
    """Knows of no jobs; every state comes from the stages' own files."""

    name = "still"
    silent: Silence | None = None

    def submit(self, stages: Sequence[Any], lock: int) -> None:
        raise AssertionError("nothing is submitted here")

    def observe(self, now: float) -> dict[str, Observation]:
        return {}

    def silence(self) -> Silence | None:
        return self.silent

    def cancel(self, stages: Sequence[str]) -> None:
        raise AssertionError("nothing is cancelled here")


def say(experiment: Experiment, key: str, state: str, at: float, **fields: Any) -> None:
    """A status file as a stage on another machine writes it."""
    told = {
        "state": state,
        "reason": "",
        "pid": os.getpid(),
        "host": f"not-{socket.gethostname()}",
        "attempt": 1,
        "started_at": at - 10,
        "updated_at": at,
        **fields,
    }
    write_json(experiment.paths.stage(key).status, told)


def metric(step: int, step_ms: float = 100.0, **more: float) -> str:
    line = {
        "step": step,
        "train_loss": 10.0 / step,
        "lr_scale": 1.0,
        "tokens": 1000 * step,
        "elapsed_ms": step_ms * step,
        **more,
    }
    return json.dumps(line) + "\n"


def append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def experiment(lab: Lab) -> Experiment:
    stages = [s for seed in (1337, 42, 7) for s in train_and_eval(seed, "pass")]
    found = lab.register(stages)
    lab.experiments.clear()  # there are no processes to look after
    return found


@pytest.fixture
def watcher(experiment: Experiment, clock: FakeClock) -> Watcher:
    return Watcher(experiment, StillExecutor(), clock)


def text_of(view: View, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(dashboard.render(view, width, height))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


# ---- files that grow ----


def test_only_new_complete_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = JsonTail(path)
    assert tail.poll() == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert tail.poll() == [{"a": 1}, {"a": 2}]
    assert tail.poll() == []
    append(path, ": 3}\n")
    assert tail.poll() == [{"a": 3}]


@pytest.mark.parametrize("after", ['{"a": 1}\n', '{"a": 1}\n{"aaa": 55555}\n{"b": 6}\n'])
def test_a_file_that_was_cut_is_read_again_from_its_start(after: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = JsonTail(path)
    path.write_text('{"a": 1}\n{"a": 2}\n')
    tail.poll()
    path.write_text(after)
    assert tail.poll() == [json.loads(line) for line in after.splitlines()]


def test_the_end_of_a_log_is_its_last_lines_and_a_progress_bar_s_last_state(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.txt"
    assert tail_lines(path, 2) == []
    path.write_bytes(b"x" * 100_000 + b"\none\n\n10%\r20%\r30%\n\xff last")
    assert tail_lines(path, 3) == ["one", "30%", "\ufffd last"]


def test_a_followed_log_gives_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    tail = TextTail(path)
    append(path, "one\ntw")
    assert tail.poll() == ["one"]
    append(path, "o\n")
    assert tail.poll() == ["two"]


# ---- progress ----


def test_speed_and_time_left_come_from_the_latest_steps(tmp_path: Path) -> None:
    paths = TrainPaths(tmp_path)
    progress = TrainProgress(paths, ScheduleConfig(iterations=40, max_wallclock_seconds=0))
    append(paths.metrics, "".join(metric(step) for step in range(1, 11)))
    seen = progress.look()
    assert (seen.step, seen.num_steps, seen.loss) == (10, 40, 1.0)
    assert seen.tokens_per_s == pytest.approx(10_000)
    assert seen.eta_s == pytest.approx(3.0)
    assert seen.fraction == pytest.approx(0.25)


def test_a_wall_clock_budget_foretells_the_number_of_steps(tmp_path: Path) -> None:
    paths = TrainPaths(tmp_path)
    schedule = ScheduleConfig(iterations=20_000, max_wallclock_seconds=600)
    append(paths.metrics, "".join(metric(step) for step in range(1, 1001)))
    seen = TrainProgress(paths, schedule).look()
    assert (seen.num_steps, seen.eta_s) == (6000, pytest.approx(500.0))
    assert len(seen.losses) <= 512


def test_a_resumed_run_goes_back_to_its_checkpoint(tmp_path: Path) -> None:
    paths = TrainPaths(tmp_path)
    progress = TrainProgress(paths, ScheduleConfig(iterations=40, max_wallclock_seconds=0))
    append(paths.metrics, "".join(metric(step) for step in range(1, 21)))
    assert progress.look().step == 20
    paths.metrics.write_text("".join(metric(step) for step in range(1, 12)))
    seen = progress.look()
    assert seen.step == 11
    assert len(seen.losses) == 11


def test_many_values_are_thinned_to_means() -> None:
    assert thin((1.0, 3.0, 5.0, 7.0), 2) == [2.0, 6.0]
    assert thin((1.0, 3.0), 5) == [1.0, 3.0]


# ---- views ----


def test_a_view_tells_where_each_seed_stands(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    now = clock.now()
    say(experiment, "1337/train", "running", now, command="train")
    append(experiment.paths.train(1337).metrics, metric(1) + metric(2, val_loss=3.0, val_bpb=1.9))
    say(experiment, "42/train", "done", now)
    say(experiment, "42/eval", "running", now, command="ttt")
    progress = {
        "protocol": "ttt", "chunk": 3, "num_chunks": 12, "tokens": 300, "num_tokens": 1200,
        "val_loss": 2.5, "val_bpb": 1.5, "elapsed_s": 10.0,
    }  # fmt: skip
    write_json(experiment.paths.evaluation(42, "ttt").progress, progress)
    view = watcher.look()
    train, evaluation, planned = view.seeds
    assert (train.state, train.progress.step, train.progress.val_bpb) == (State.RUNNING, 2, 1.9)
    assert train.elapsed_s == 10
    assert (evaluation.progress.chunk, evaluation.progress.val_bpb) == (3, 1.5)
    assert evaluation.progress.eta_s == pytest.approx(30.0)
    assert planned.state is State.PLANNED
    assert not view.is_over


def test_a_scheduler_that_does_not_answer_is_told_with_the_age_of_what_it_said(
    experiment: Experiment, clock: FakeClock
) -> None:
    executor = StillExecutor()
    watcher, stream = Watcher(experiment, executor, clock), EventStream()
    list(stream.take(watcher.look()))
    executor.silent = Silence(reason="Slurm does not answer: refused", heard_at=clock.now())
    clock.sleep(42)
    view = watcher.look()
    assert "Slurm does not answer: refused; it last did 42 s ago" in text_of(view)
    [notice] = stream.take(view)
    [line] = plain_lines(notice)
    assert line.endswith("Slurm does not answer: refused")
    assert plain_view(view)["silence"]["reason"] == "Slurm does not answer: refused"
    assert list(stream.take(watcher.look())) == [], "told once"
    executor.silent = None
    [notice] = stream.take(watcher.look())
    assert (notice["silent"], notice["text"]) == (False, "the scheduler answers again")


def test_attempts_are_counted_from_the_notes_of_the_jobs(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    notes = [
        {"event": "started", "attempt": 1, "job": "12", "node": "n1", "exit_code": None, "time": 5},
        {"event": "warned", "attempt": 1, "job": "12", "node": "n1", "exit_code": None, "time": 8},
        {"event": "requeued", "attempt": 1, "job": "12", "node": "n1", "exit_code": 140, "time": 9},
        {
            "event": "started",
            "attempt": 2,
            "job": "12",
            "node": "n2",
            "exit_code": None,
            "time": 20,
        },
    ]
    root = experiment.paths.stage("7/train").root
    append(root / "attempts.jsonl", "".join(json.dumps(note) + "\n" for note in notes))
    say(experiment, "7/train", "running", clock.now(), command="train", attempt=1)
    view = watcher.look()
    stage = view.seeds[2].stages[0]
    assert stage.num_attempts == 2
    assert "train ×2" in text_of(view)
    table = dashboard.attempts(view)
    assert table is not None
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    _, first, second = console.file.getvalue().splitlines()
    assert first.split()[:4] == ["7/train", "1", "12", "n1"]
    assert first.endswith("0:04    warned, put back (exit code 140)")
    assert second.split()[:3] == ["2", "12", "n2"]
    told = plain_view(view)["stages"]
    assert [len(s["attempts"]) for s in told if s["stage"] == "7/train"] == [2]


def test_looking_ends_when_nothing_runs_or_waits(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    began = clock.now()
    for seed in (1337, 42, 7):
        say(experiment, f"{seed}/train", "done", began)
        say(experiment, f"{seed}/eval", "running", began, command="ttt")
    views = watcher.views()
    assert not next(views).is_over
    assert not next(views).is_over
    for seed in (1337, 42, 7):
        say(experiment, f"{seed}/eval", "failed" if seed == 7 else "done", clock.now())
    assert next(views).is_over
    assert next(views, None) is None
    assert clock.now() == began + 2.0


def test_a_silent_stage_of_another_machine_is_lost(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    say(experiment, "7/train", "running", clock.now(), command="train")
    append(experiment.paths.stage("7/train").log, "the last words\n")
    assert watcher.look().seeds[2].state is State.RUNNING
    clock.sleep(200)
    seed = watcher.look().seeds[2]
    assert seed.state is State.LOST
    assert seed.stage.log_tail == ("the last words",)


# ---- dashboard ----


@pytest.mark.parametrize("width", [80, 140])
def test_the_dashboard_fits_its_terminal_and_tells_what_matters(
    width: int, experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    now = clock.now()
    say(experiment, "1337/train", "running", now, command="train", attempt=2)
    append(experiment.paths.train(1337).metrics, "".join(metric(s) for s in range(1, 26)))
    say(experiment, "42/train", "failed", now, reason="train exited with code 1", ended_at=now)
    append(experiment.paths.stage("42/train").log, "golf: the loss is NaN\n")
    say(experiment, "7/train", "done", now)
    say(experiment, "7/eval", "done", now, ended_at=now)
    result = experiment.paths.evaluation(7, "ttt").result
    write_json(result, {"val_loss": 1.9262, "val_bpb": 1.1408})
    text = text_of(watcher.look(), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for words in ("● train ×2", "25/6000", "10.0k", "✔ done", "1.926", "1.1408", "✘ train failed",
                  "golf: the loss is NaN", "Ctrl-C detaches", "golf-launch attach"):  # fmt: skip
        assert words in text
    assert ("█" in text) == (width == 140)


GROUP = {
    "protocol": "ttt", "chunk": 3, "num_chunks": 12, "tokens": 300, "num_tokens": 1200,
    "windows": 30, "num_windows": 120, "val_loss": 2.5, "val_bpb": 1.5, "elapsed_s": 10.0,
    "workers": [
        {"rank": 0, "host": "node1", "pid": 10, "busy": 0.95, "alive": True},
        {"rank": 1, "host": "node2", "pid": 11, "busy": 0.91, "alive": True},
    ],
    "recoveries": [],
}  # fmt: skip
ADAPTER_AND_SCORERS = [
    {"rank": rank, "host": "node1", "pid": 10 + rank, "busy": busy, "alive": True, "role": role}
    for rank, (role, busy) in enumerate([("adapter", 0.5), ("scorer", 0.7), ("scorer", 0.9)])
]
LOSS = {"chunk": 3, "cause": "worker 1 (pid 11 on node2) died: killed", "rebuild_s": 9.5}


@pytest.fixture
def fanned_out(experiment: Experiment, clock: FakeClock) -> Path:
    """`progress.json` of a seed that two workers evaluate."""
    say(experiment, "42/train", "done", clock.now())
    say(experiment, "42/eval", "running", clock.now(), command="ttt")
    return experiment.paths.evaluation(42, "ttt").progress


@pytest.mark.parametrize(
    ("width", "changes", "shown"),
    [
        pytest.param(80, {}, "3/12  2×93%", id="narrow"),
        pytest.param(112, {}, "3/12  2 workers 93% busy", id="wide"),
        pytest.param(
            140,
            {"workers": ADAPTER_AND_SCORERS},
            "1 adapter 50%, 2 scorers 80% busy",
            id="pipelined",
        ),
        pytest.param(80, {"workers": ADAPTER_AND_SCORERS}, "3/12  3×70%", id="pipelined, narrow"),
        pytest.param(80, {"recoveries": [LOSS, LOSS]}, "3/12 ↻2  2×93%", id="survived two losses"),
        pytest.param(
            112,
            {
                "recoveries": [{**LOSS, "rebuild_s": None}],
                "workers": [GROUP["workers"][0], {**GROUP["workers"][1], "alive": False}],
            },
            "3/12 ↻1 rebuilds, 1 of 2 alive",
            id="rebuilding",
        ),
    ],
)
def test_the_dashboard_tells_of_the_workers_of_an_evaluation(
    width: int, changes: dict[str, Any], shown: str, watcher: Watcher, fanned_out: Path
) -> None:
    write_json(fanned_out, GROUP | changes)
    text = text_of(watcher.look(), width)
    [row] = [line for line in text.splitlines() if line.strip().startswith("42")]
    assert shown in row
    assert "1.5000" in row
    assert "0:30" in row, "the time left"
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_status_names_the_workers_their_nodes_and_the_last_loss(
    watcher: Watcher, fanned_out: Path
) -> None:
    write_json(fanned_out, GROUP | {"recoveries": [LOSS]})
    [line] = dashboard.groups(watcher.look())
    assert line.plain == (
        "seed 42  2 of 2 workers on node1, node2, busy 95% 91%; lost once, lastly in chunk 4: "
        "worker 1 (pid 11 on node2) died: killed"
    )


def test_figures_are_short() -> None:
    assert [figures.duration(s) for s in (None, 5, 605, 3723)] == ["–", "0:05", "10:05", "1:02:03"]
    assert [figures.rate(r) for r in (None, 950.4, 8123, 999_960, 3.2e6)] == [
        "–", "950", "8.1k", "1.0M", "3.2M",
    ]  # fmt: skip
    assert [figures.ago(s) for s in (0.5, 12, 600, 7200, 200_000)] == [
        "now", "12 s ago", "10 min ago", "2 h ago", "2 days ago",
    ]  # fmt: skip
    assert figures.sparkline([3, 2, 1, 1]) == "█▅▁▁"


# ---- events ----


def test_events_tell_changes_once_and_progress_now_and_then(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    stream = EventStream(progress_every_s=10)
    assert len(list(stream.take(watcher.look()))) == 6  # every stage, once
    say(experiment, "7/train", "running", clock.now(), command="train")
    append(experiment.paths.train(7).metrics, metric(1))
    first, second = stream.take(watcher.look())
    assert (first["event"], first["stage"], first["state"]) == ("state", "7/train", "running")
    assert (second["event"], second["seed"], second["step"]) == ("progress", 7, 1)
    clock.sleep(5)
    append(experiment.paths.train(7).metrics, metric(2))
    assert list(stream.take(watcher.look())) == []
    clock.sleep(5)
    [later] = stream.take(watcher.look())
    assert later["step"] == 2
    json.dumps(later)


def test_a_failure_s_event_and_plain_lines_carry_the_end_of_its_log(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    log = experiment.paths.stage("7/train").log
    append(log, "step 1\ngolf: the loss is NaN\n")
    say(experiment, "7/train", "failed", clock.now(), reason="train exited with code 1")
    [event] = [e for e in EventStream().take(watcher.look()) if e["state"] == "failed"]
    assert event["log_tail"] == ["step 1", "golf: the loss is NaN"]
    lines = list(plain_lines(event))
    assert lines[0].endswith("7/train      failed  train exited with code 1")
    assert lines[2].endswith("| golf: the loss is NaN")
    assert lines[-1].endswith(str(log))


def test_a_view_as_json_carries_states_with_evidence_and_age(
    experiment: Experiment, watcher: Watcher, clock: FakeClock
) -> None:
    say(experiment, "7/train", "done", clock.now())
    clock.sleep(30)
    plain = plain_view(watcher.look())
    [stage] = [s for s in plain["stages"] if s["stage"] == "7/train"]
    assert (stage["state"], stage["evidence"], stage["age_s"]) == ("done", "status.json", 30.0)
    json.dumps(plain)


def test_workers_are_told_by_what_they_do() -> None:
    shown = {"event": "progress", "time": 0.0, "stage": "7/eval", "command": "ttt"}
    together = plain_lines(shown | {"busy": (0.9, 0.8)})
    assert next(together).endswith("ttt  workers 90% 80%")
    split = plain_lines(shown | {"busy": (0.9, 0.8, 0.7), "roles": ("adapter", "scorer", "scorer")})
    assert next(split).endswith("ttt  adapters 90%  scorers 80% 70%")
