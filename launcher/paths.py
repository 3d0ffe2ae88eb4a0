"""Where an experiment's files are.

`RunPaths` are those of one job over its seeds. An experiment that sweeps nothing is the runs of its
only job; one that sweeps has a folder of runs for each variant of the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from golf.records import DataPaths, EvalPaths, StagePaths, TrainPaths


@dataclass(frozen=True)
class RunPaths:
    """Paths of the runs of one job."""

    root: Path
    training: Path | None = None
    """Root of the runs that train for these too; None where they train themselves."""

    @property
    def job(self) -> Path:
        return self.root / "job.toml"

    @property
    def script(self) -> Path:
        """The single file that a submission of this job ships."""
        return self.root / "train_gpt.py"

    def run_stage(self, seed: int, kind: str) -> StagePaths:
        """Folder of a seed's stage, wherever it ran."""
        root = self.training if kind == "train" and self.training is not None else self.root
        return StagePaths(root / "seeds" / str(seed) / kind)

    def train(self, seed: int) -> TrainPaths:
        return TrainPaths(self.run_stage(seed, "train").root)

    def artifact(self, seed: int) -> Path:
        return self.train(seed).root / "model.golf"

    def artifact_sizes(self, seed: int) -> Path:
        return self.train(seed).root / "model.golf.json"

    def round_trip(self, seed: int) -> EvalPaths:
        return EvalPaths(self.train(seed).root / "roundtrip")

    def evaluation(self, seed: int, protocol: str) -> EvalPaths:
        return EvalPaths(self.run_stage(seed, "eval").root / protocol)


@dataclass(frozen=True)
class ExperimentPaths(RunPaths):
    """Every path of an experiment."""

    @property
    def registry(self) -> Path:
        return self.root / "experiment.json"

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def code_diff(self) -> Path:
        """What `code` differs from the commit in `experiment.json`, if it does."""
        return self.root / "code.diff"

    @property
    def data(self) -> DataPaths:
        return DataPaths(self.root / "data")

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / "launcher.lock"

    @property
    def report_json(self) -> Path:
        return self.root / "report.json"

    @property
    def report_md(self) -> Path:
        return self.root / "report.md"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    def runs(self, variant: str, trained_by: str | None = None) -> RunPaths:
        """Paths of a variant's runs; `trained_by` is the variant that trains for it."""
        if not variant:
            return self
        variants = self.root / "variants"
        shared = trained_by not in (None, variant)
        return RunPaths(variants / variant, variants / str(trained_by) if shared else None)

    def stage(self, key: str) -> StagePaths:
        """Folder of a stage by its key: `prepare`, `1337/train`, `lr=0.01/1337/train`."""
        variant, _, rest = key.rpartition("/")[0].rpartition("/")
        if not rest:
            return StagePaths(self.root / key)
        return self.runs(variant).run_stage(int(rest), key.rpartition("/")[2])
