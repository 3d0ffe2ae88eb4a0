"""Handing a batch to Slurm through submitit.

submitit checks the parameters, writes the script beside the logs and calls sbatch. Of its job side
nothing is used: no pickle, no `submitit.core._submit`, no state from its sacct watcher.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from launcher.errors import LaunchError
from launcher.executors.slurm_batches import Batch
from launcher.executors.slurm_script import Launch, Needs, body, parameters


class ScriptExecutor(submitit.SlurmExecutor):
    """submitit's executor for a script of ours below its header."""

    def __init__(self, folder: Path, parameters: dict[str, Any], num_tasks: int) -> None:
        super().__init__(folder)
        self.update_parameters(wckey=None, **parameters)
        if num_tasks > 1:
            self.parameters["map_count"] = num_tasks

    def text(self, body: str) -> str:
        """The whole script, as it would be submitted."""
        return str(self._make_submission_file_text(body, uid=""))

    def submit_script(self, body: str) -> str:
        """Submit it; returns the job's id.

        Raises:
            LaunchError: sbatch refused it, with its words.
        """
        with clean_environment():
            try:
                # The public `submit` pickles a function; its own arrays go this way as well.
                return str(self._submit_command(body).job_id)
            except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
                raise LaunchError(f"sbatch refused: {_said(error)}") from error

    def test(self, body: str) -> str:
        """What `sbatch --test-only` says of it: when it would start, or why it never could."""
        with clean_environment():
            done = subprocess.run(
                ["sbatch", "--test-only"],
                input=self.text(body),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        return done.stderr.strip()


def render(launch: Launch, batch: Batch) -> tuple[str, str]:
    """The script of a batch that waits for nothing, and what Slurm says of it."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = parameters(launch, batch, Needs())
        executor = ScriptExecutor(Path(folder), wanted, len(batch.stages))
        text = body(launch, batch)
        return executor.text(text), executor.test(text)


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    """Without what the job around us, if any, left in the environment; the site itself stays."""
    site = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if site is not None:
            os.environ["SLURM_CONF"] = site
        try:
            yield
        finally:
            os.environ.pop("SLURM_CONF", None)


def _said(error: Exception) -> str:
    """sbatch's own words out of submitit's message."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line.partition("error: ")[2] for line in lines if "sbatch: error: " in line]
    return "; ".join(told) or (lines[-1] if lines else type(error).__name__)
