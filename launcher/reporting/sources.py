"""Scores by name: an experiment, a published record, or the challenge's own files.

A path wins over a record's name, and a record's over an experiment's.
"""

from __future__ import annotations

from pathlib import Path

from launcher.errors import LaunchError
from launcher.experiment import Experiment, find_runs, list_experiments
from launcher.report import collect
from launcher.reporting.baselines import find_baseline, nearest
from launcher.reporting.challenge_logs import LogPatterns, read_logs, read_submission
from launcher.reporting.scores import Scores


def find_scores(name: str, runs: Path, patterns: LogPatterns | None = None) -> Scores:
    """The scores that a user named.

    Raises:
        LaunchError: nothing has this name, or several things do.
    """
    path = Path(name)
    if path.is_file():
        return read_submission(path)
    if path.is_dir() and is_experiment(path):
        return _of_experiment(*find_runs(runs, name))
    if path.is_dir() and (path / "submission.json").is_file() and patterns is None:
        return read_submission(path / "submission.json")
    if path.is_dir():
        return read_logs(path, patterns or LogPatterns())
    record = find_baseline(name)
    if record is not None:
        return record.scores
    known = list_experiments(runs) if runs.is_dir() else []
    whole = name.rpartition("/")[0] or name
    if any(name in experiment.name or whole in experiment.name for experiment in known):
        return _of_experiment(*find_runs(runs, name))
    raise LaunchError(
        f"there is no experiment in {runs}/, no record, no file and no folder {name!r}; "
        f"{nearest(name)}"
    )


def is_experiment(folder: Path) -> bool:
    """Whether it is an experiment's folder, or that of a sweep's variant."""
    whole = folder.resolve().parents[1] if folder.resolve().parent.name == "variants" else folder
    return (whole / "experiment.json").is_file()


def _of_experiment(experiment: Experiment, variant: str | None) -> Scores:
    from launcher.executors.choice import executor_of

    report = collect(experiment, executor_of(experiment), variant)
    scores = report.final_scores(str(experiment.runs_of(variant).paths.root))
    if not scores.seeds:
        raise LaunchError(
            f"{experiment.name} has no finished seed; see golf-launch status {experiment.name}"
        )
    return scores
