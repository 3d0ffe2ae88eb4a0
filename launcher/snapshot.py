"""The code an experiment runs: copied into its folder, so that edits do not reach running jobs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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


def uncommitted_diff() -> str:
    """What the packages differ from their commit, new files included; empty outside git.

    The user's own index stays as it is: new files are noted in a temporary one.
    """
    if git_state() is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        for words in (("read-tree", "HEAD"), ("add", "--intent-to-add", "--", *PACKAGES)):
            if _git(*words, env=index) is None:
                return ""
        diff = _git("diff", "--binary", "HEAD", "--", *PACKAGES, env=index)
    return f"{diff}\n" if diff else ""


def _git(*words: str, env: dict[str, str] | None = None) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(source_root()), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            env={**os.environ, **(env or {})},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
