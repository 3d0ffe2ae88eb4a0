"""Command lines and paths that the launcher suggests, as short as they can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(name: str, experiment: Path) -> str:
    """`golf-launch NAME EXPERIMENT`, with --runs where the experiment lies elsewhere."""
    words = ["golf-launch", name, experiment.name]
    if experiment.parent != Path("runs").absolute():
        words += ["--runs", short(experiment.parent)]
    return shlex.join(words)


def short(path: Path) -> str:
    """A path from the current folder, where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
