"""A seed that was trained and evaluated without Ray or Slurm, to hold theirs against."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tomli_w

from golf.config import Job, job_to_sections
from golf.records import DataPaths


def train_and_evaluate(job: Job, data: DataPaths, folder: Path, seed: int, ranks: int) -> Path:
    """Fill `folder/train` by one process and `folder/ttt` by so many ranks; returns the folder."""
    (folder / "job.toml").write_text(tomli_w.dumps(job_to_sections(job)))
    config, source = ["--config", f"{folder}/job.toml"], ["--data", str(data.root)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    artifact = f"{folder}/train/model.golf"
    for launch, words in (
        ([], ["train", *config, *source, "--out", f"{folder}/train", "--seed", str(seed)]),
        ([], ["quantize", *config, "--checkpoint", f"{folder}/train/model.safetensors",
              "--out", artifact]),
        (torchrun if ranks > 1 else [],
         ["eval", *config, *source, "--artifact", artifact, "--protocol", "ttt",
          "--out", f"{folder}/ttt", "--device", "cpu"]),
    ):  # fmt: skip
        words = [sys.executable, *launch, "-m", "golf", *words]
        subprocess.run(words, check=True, capture_output=True)
    return folder
