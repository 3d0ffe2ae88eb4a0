"""The code an experiment runs: copied into its folder, so that edits do not reach running jobs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("golf", "launcher")


def source_root() -> Path:
    """The folder that holds the two packages as they run now."""
    return Path(__file__).resolve().parent.parent


def copy_code(target: Path) -> None:
    """Copy both packages, with their data files and without compiled ones."""
    for package in PACKAGES:
        shutil.copytree(
            source_root() / package,
            target / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"),
        )


def git_state() -> dict[str, Any] | None:
    """Commit of the source tree and whether the packages differ from it; None outside git."""
    # An installed package may lie in a folder that some other repository ignores.
    if _git("ls-files", "--error-unmatch", "launcher/__init__.py") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", *PACKAGES)
    return {"commit": commit, "changed": bool(changes)}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(source_root()), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
