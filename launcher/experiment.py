"""The folder of an experiment: registered once, then added to and never cleared.

runs/<name>-<id>/
  experiment.json      seeds, stages and provenance, written before the first submission
  job.toml             the resolved job, every key spelled out
  train_gpt.py         the code that ships, as one file: its bytes count with the model's
  code/                the packages as they were; the stages run these
  code.diff            what they differ from the commit, if they do
  data/, prepare/      the embedded corpus, where the job asks for it
  seeds/<seed>/train/  seeds/<seed>/eval/
  variants/<variant>/  of a sweep, instead: job.toml, train_gpt.py and seeds/ of each variant
  jobs/                the scheduler's side: scripts and output of the jobs
  submissions.jsonl    one line a submitted job
  report.json, report.md, report.html
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import golf.config
from golf.bundle import bundle
from golf.config import Job
from golf.records import read_json, read_lines, replace_file, write_json
from launcher import snapshot
from launcher.errors import LaunchError
from launcher.paths import ExperimentPaths, RunPaths
from launcher.stage import Stage
from launcher.sweep import Variant

__all__ = [
    "Experiment",
    "ExperimentPaths",
    "Registration",
    "Runs",
    "Submission",
    "find_experiment",
    "find_runs",
    "list_experiments",
    "new_name",
]
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One job given to an executor."""

    stage: str
    executor: str
    job_id: str
    host: str
    submitted_at: float


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What is fixed before the first submission."""

    seeds: tuple[int, ...]
    stages: tuple[Stage, ...]
    asked_job: str
    """The job as the user named it."""
    overrides: tuple[str, ...] = ()
    data: str = ""
    executor: str = "local"
    profile: dict[str, Any] = field(default_factory=dict)
    """The site's profile, so that whoever attaches asks the same site."""
    policy: dict[str, Any] | None = None
    """What will count as better, and the baseline's scores; see `reporting.policy`."""
    variants: tuple[Variant, ...] = ()
    """Of a sweep, all of them; none where there is one job."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one job over the seeds: a variant of a sweep, or the whole experiment."""

    variant: str
    """Key of the variant; empty where nothing is swept."""
    overrides: tuple[str, ...]
    """The swept settings, as the variant has them."""
    paths: RunPaths
    whole: ExperimentPaths
    """Paths of the experiment that they belong to."""
    seeds: tuple[int, ...]
    stages: tuple[Stage, ...]
    """Its own, and those of another variant that train for it."""

    def job(self) -> Job:
        return golf.config.load_job(self.paths.job)

    @property
    def name(self) -> str:
        """The experiment's, of a sweep with the variant's key."""
        return f"{self.whole.root.name}/{self.variant}" if self.variant else self.whole.root.name

    def stages_of(self, seed: int) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage.seed == seed)


class Experiment:
    """One experiment's folder, read back from its files."""

    def __init__(self, paths: ExperimentPaths, registry: dict[str, Any]) -> None:
        self.paths = paths
        self.name: str = paths.root.name
        self.seeds: tuple[int, ...] = tuple(registry["seeds"])
        self.created_at: float = registry["created_at"]
        self.registry = registry
        self.stages: tuple[Stage, ...] = tuple(
            Stage.read_back(entry, read_json(paths.stage(entry["key"]).spec) or {})
            for entry in registry["stages"]
        )
        self.runs: tuple[Runs, ...] = tuple(self._runs())
        """One, or of a sweep one a variant."""

    def _runs(self) -> Iterator[Runs]:
        unswept = {"key": "", "trained_by": "", "overrides": []}
        for variant in self.registry.get("variants") or [unswept]:
            key = variant["key"]
            own = [stage for stage in self.stages if stage.seed is not None]
            own = [stage for stage in own if stage.variant == key]
            needed = {before for stage in own for before in stage.after}
            yield Runs(
                variant=key,
                overrides=tuple(variant["overrides"]),
                paths=self.paths.runs(key, variant["trained_by"]),
                whole=self.paths,
                seeds=self.seeds,
                stages=tuple(
                    s for s in self.stages if s in own or (s.seed is not None and s.key in needed)
                ),
            )

    @property
    def is_sweep(self) -> bool:
        return bool(self.registry.get("variants"))

    @classmethod
    def register(cls, paths: ExperimentPaths, job: Job, wanted: Registration) -> Experiment:
        """Create the folder: jobs, code, stages and, as the last file, the registry."""
        paths.root.mkdir(parents=True)
        snapshot.copy_code(paths.code)
        for variant in wanted.variants:
            _write_job(paths, paths.runs(variant.key), variant.job)
        if not wanted.variants:
            _write_job(paths, paths, job)
        diff = snapshot.uncommitted_diff()
        if diff:
            with replace_file(paths.code_diff) as temporary:
                temporary.write_text(diff)
        for stage in wanted.stages:
            write_json(paths.stage(stage.key).spec, stage.spec())
        write_json(
            paths.registry,
            {
                "schema": SCHEMA,
                "name": paths.root.name,
                "created_at": time.time(),
                "host": socket.gethostname(),
                "python": sys.version.split()[0],
                "git": snapshot.git_state(),
                "job": wanted.asked_job,
                "overrides": list(wanted.overrides),
                "data": wanted.data,
                "executor": wanted.executor,
                "profile": wanted.profile,
                "policy": wanted.policy,
                "seeds": list(wanted.seeds),
                "variants": [variant.registration() for variant in wanted.variants],
                "stages": [stage.registration() for stage in wanted.stages],
            },
        )
        return cls.open(paths.root)

    @classmethod
    def open(cls, root: Path) -> Experiment:
        """Read an experiment's folder.

        Raises:
            LaunchError: it holds no registered experiment.
        """
        paths = ExperimentPaths(root.resolve())
        registry = read_json(paths.registry)
        if registry is None:
            raise LaunchError(f"{root} holds no experiment (no experiment.json)")
        if registry["schema"] != SCHEMA:
            raise LaunchError(
                f"{root} was written by another version of golf-launch (schema "
                f"{registry['schema']}, this one reads {SCHEMA})"
            )
        return cls(paths, registry)

    def job(self) -> Job:
        """The job; of a sweep the first variant's, which differs in what is swept only."""
        return self.runs[0].job()

    def runs_of(self, variant: str | None) -> Runs:
        """The runs of a variant by its key, or of an experiment that has but one job.

        Raises:
            LaunchError: there is no such variant, or none is named and there are several.
        """
        keys = [runs.variant for runs in self.runs]
        if variant is None and not self.is_sweep:
            return self.runs[0]
        if variant in keys and variant:
            return self.runs[keys.index(variant)]
        if not self.is_sweep:
            raise LaunchError(f"{self.name} sweeps nothing; name it without /{variant}")
        what = f"has no variant {variant!r}" if variant else "is a sweep"
        raise LaunchError(
            f"{self.name} {what}; name one of its variants, as in {self.name}/{keys[0]}; it has "
            f"{', '.join(keys)}"
        )

    def stage(self, key: str) -> Stage:
        return next(stage for stage in self.stages if stage.key == key)

    @property
    def shared_stages(self) -> tuple[Stage, ...]:
        """Those of no seed: the preparation of data, if there is one."""
        return tuple(stage for stage in self.stages if stage.seed is None)

    def record_submission(self, submission: Submission) -> None:
        self._append_submission(asdict(submission))

    def announce_submissions(self, stages: Sequence[Stage]) -> None:
        """Say that jobs of these stages come next, so that older ones no longer speak for them."""
        for stage in stages:
            self._append_submission({"stage": stage.key, "job_id": None})

    def submissions(self) -> dict[str, Submission]:
        """The latest job of each stage."""
        latest = {line["stage"]: line for line in read_lines(self.paths.submissions)}
        return {key: Submission(**line) for key, line in latest.items() if line["job_id"]}

    def _append_submission(self, line: dict[str, Any]) -> None:
        """A single write, so that a killed launcher leaves no half of a line."""
        with self.paths.submissions.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Exclude other launchers while stages are submitted; yields the lock's descriptor.

        Raises:
            LaunchError: another launcher holds it.
        """
        with self.paths.lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown process"
                raise LaunchError(
                    f"another launcher ({holder}) is submitting {self.name}; "
                    f"watch it with: golf-launch attach {self.name}"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield file.fileno()


def _write_job(paths: ExperimentPaths, runs: RunPaths, job: Job) -> None:
    """The resolved job, and the code that would ship with it."""
    import tomli_w

    with replace_file(runs.job) as temporary:
        temporary.write_text(tomli_w.dumps(golf.config.job_to_sections(job)))
    with replace_file(runs.script) as temporary:
        temporary.write_text(bundle(paths.code / "golf", job))


def new_name(job_name: str, now: float) -> str:
    """`<name>-<id>`: sorts by time, and two launches in one second differ."""
    return (
        f"{job_name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{secrets.token_hex(2)}"
    )


def list_experiments(runs: Path) -> list[Experiment]:
    """The experiments of a folder, oldest first."""
    found = [Experiment.open(path.parent) for path in runs.glob("*/experiment.json")]
    return sorted(found, key=lambda experiment: experiment.created_at)


def find_experiment(runs: Path, name: str | None) -> Experiment:
    """An experiment by path, name or unambiguous part of its name; without one the newest.

    Raises:
        LaunchError: none matches, or several do.
    """
    if name is not None and (Path(name) / "experiment.json").is_file():
        return Experiment.open(Path(name))
    known = list_experiments(runs)
    if not known:
        raise LaunchError(
            f"there is no experiment in {runs}/; start one, as in golf-launch smoke --seeds "
            "1337,42,7, or point to another folder with --runs"
        )
    if name is None:
        return known[-1]
    matches = [e for e in known if e.name == name] or [e for e in known if name in e.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LaunchError(f"{name!r} fits several: {', '.join(e.name for e in matches)}")
    raise LaunchError(
        f"there is no experiment {name!r} in {runs}/{_nearest(name, [e.name for e in known])}"
    )


def find_runs(runs: Path, name: str | None) -> tuple[Experiment, str | None]:
    """An experiment as `find_experiment` finds it, and of `NAME/KEY` or a variant's folder its key.

    Raises:
        LaunchError: there is no such experiment.
    """
    if name is None or (Path(name) / "experiment.json").is_file():
        return find_experiment(runs, name), None
    folder = Path(name).resolve()
    if folder.parent.name == "variants" and (folder.parents[1] / "experiment.json").is_file():
        return Experiment.open(folder.parents[1]), folder.name
    whole, _, variant = name.rstrip("/").rpartition("/")
    if whole and any(whole in known.name for known in list_experiments(runs)):
        return find_experiment(runs, whole), variant
    return find_experiment(runs, name), None


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
