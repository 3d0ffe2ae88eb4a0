"""What the user asked for: which job file, which seeds.

Jobs that ship with the package are known by name; anything else is a path.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import LaunchError

MAX_SEED = 2**32 - 1
"""Every random generator in use takes a seed of 32 bits."""
NO_JOBS = ("baselines",)
"""Other files of `jobs/`: published results to compare with."""


def jobs_folder() -> Path:
    """`jobs/` of the installed package or, in a source tree, of the project."""
    here = Path(__file__).resolve().parent
    installed = here / "jobs"
    return installed if installed.is_dir() else here.parent / "jobs"


def shipped_jobs() -> dict[str, Path]:
    """The shipped job files by name."""
    files = sorted(jobs_folder().glob("*.toml"))
    return {path.stem: path for path in files if path.stem not in NO_JOBS}


def find_job(name: str, commands: Sequence[str] = ()) -> Path:
    """The path of a job file, given as such or as the name of a shipped one.

    `commands` are words that the user may have meant instead.

    Raises:
        LaunchError: neither exists.
    """
    shipped = shipped_jobs()
    path = Path(name)
    if path.is_file():
        return path
    if name.removesuffix(".toml") in shipped and path.parent == Path():
        return shipped[name.removesuffix(".toml")]
    near = difflib.get_close_matches(name, [*shipped, *commands], n=1, cutoff=0.5)
    if near and near[0] in commands:
        hint = f"did you mean golf-launch {near[0]}? A command comes first."
    else:
        hint = f"did you mean {near[0]}?" if near else f"known jobs: {', '.join(shipped)}"
    raise LaunchError(f"there is no job {name!r}, as a file or by name; {hint}")


def parse_seeds(words: Sequence[str]) -> tuple[int, ...]:
    """Seeds in the order given, from words that may hold several, parted by commas or spaces.

    Raises:
        LaunchError: there is none, or one is no number, negative, too large or given twice.
    """
    texts = [text for word in words for text in word.replace(",", " ").split()]
    if not texts:
        raise LaunchError("no seeds given; name them as in --seeds 1337,42,7")
    seeds: list[int] = []
    for text in texts:
        if not (text.isascii() and text.removeprefix("-").isdigit()):
            raise LaunchError(
                f"seed {text!r} is no whole number; write --seeds 1337,42,7, after the job's name"
            )
        seed = int(text)
        if not 0 <= seed <= MAX_SEED:
            raise LaunchError(f"seed {seed} must lie between 0 and {MAX_SEED}")
        if seed in seeds:
            raise LaunchError(f"seed {seed} is given twice; each seed is one run")
        seeds.append(seed)
    return tuple(seeds)
