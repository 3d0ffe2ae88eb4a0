"""A data folder's manifest: what it holds, what it was made from, and whether it is complete.

1. `fill_folder` marks a folder as incomplete while it is filled, and keeps other writers out.
2. `write_manifest` is the last to write: the manifest's presence says that all files are there.
3. `find_complete` tells a folder that holds just what is asked for from one that holds other data.
4. `check_manifest` holds the files against sizes and, on request, against hashes.

Folders made by the challenge's own tools have no manifest of ours and are taken as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from golf.data.documents import PrepareError
from golf.data.shards import INCOMPLETE_MARKER
from golf.records import DataPaths, read_json, write_json

FORMAT = "golf-data-1"

Progress = Callable[[str, int, int | None], None]
"""Called with a stage's name, what is done of it, and the whole where it is known."""


def silent(stage: str, done: int, total: int | None) -> None:
    """The `Progress` that shows nothing."""


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file, under its name."""
    return {
        path.name: {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files
    }


def read_manifest(paths: DataPaths) -> dict[str, Any] | None:
    """The folder's manifest, or None where it has none of ours."""
    manifest = read_json(paths.manifest) if paths.manifest.is_file() else None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    return manifest


def write_manifest(paths: DataPaths, manifest: dict[str, Any]) -> dict[str, Any]:
    """Complete a folder; returns the manifest as it will be read."""
    write_json(paths.manifest, {"format": FORMAT, **manifest})
    written = read_manifest(paths)
    assert written is not None
    return written


def check_manifest(paths: DataPaths, hashes: bool = False) -> dict[str, Any]:
    """Hold every file against the manifest's sizes, with `hashes` also its SHA-256.

    Returns:
        The manifest; empty where the folder has none of ours.

    Raises:
        PrepareError: a file is missing or differs.
    """
    manifest = read_manifest(paths)
    if manifest is None:
        return {}
    fix = "restore it, or prepare or download the data again into an empty folder"
    for name, expected in manifest["files"].items():
        path = paths.root / name
        if not path.is_file():
            raise PrepareError(f"{path}: missing, though manifest.json lists it; {fix}")
        size_bytes = path.stat().st_size
        if size_bytes != expected["size_bytes"]:
            raise PrepareError(
                f"{path}: {size_bytes:,} bytes where manifest.json says "
                f"{expected['size_bytes']:,}; {fix}"
            )
        if hashes and sha256_file(path) != expected["sha256"]:
            raise PrepareError(f"{path}: its SHA-256 is not the one in manifest.json; {fix}")
    return manifest


def find_complete(paths: DataPaths, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of a complete folder that was made with `wanted`, None for an unfinished one.

    Raises:
        PrepareError: the folder was made with other settings or sources, or a file is damaged.
    """
    manifest = check_manifest(paths)
    if not manifest:
        return None
    for section, values in wanted.items():
        there = manifest.get(section)
        if there != values:
            raise PrepareError(
                f"{paths.root}: already holds data of other {section} "
                f"({_difference(there, values)}); choose another folder or remove this one"
            )
    return manifest


def _difference(there: Any, wanted: Any) -> str:
    if not isinstance(there, dict) or not isinstance(wanted, dict):
        return f"{_names(there)}, now {_names(wanted)}"
    keys = [key for key in wanted if there.get(key) != wanted[key]]
    return ", ".join(f"{key} = {there.get(key)}, now {wanted[key]}" for key in keys)


def _names(sources: Any) -> str:
    """Sources by name and the start of their hash."""
    return " ".join(f"{source['name']} [{source['sha256'][:8]}]" for source in sources or [])


@contextlib.contextmanager
def fill_folder(paths: DataPaths, given: Path | None = None) -> Iterator[None]:
    """Fill the folder within the block; it counts as incomplete until the block has succeeded.

    Leftover shards of a broken-off attempt may lie in it. `given` is a tokenizer that may.

    Raises:
        PrepareError: another process fills it, it holds someone else's data, or cannot be written.
    """
    marker = paths.root / INCOMPLETE_MARKER
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            _refuse_foreign_files(paths, given)
        with marker.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PrepareError(
                    f"{paths.root}: another process is filling this folder; wait for it or choose "
                    "another folder"
                ) from None
            yield
            marker.unlink(missing_ok=True)
    except OSError as error:
        raise PrepareError(
            f"{paths.root}: cannot be written ({error}); free space, or choose another folder"
        ) from error


def _refuse_foreign_files(paths: DataPaths, given: Path | None) -> None:
    if read_manifest(paths):
        return
    present = [*paths.shards("train"), *paths.shards("val")]
    if paths.manifest.exists():
        present.append(paths.manifest)
    if paths.tokenizer.exists() and not (given and paths.tokenizer.samefile(given)):
        present.append(paths.tokenizer)
    if present:
        raise PrepareError(
            f"{paths.root}: holds {present[0].name}, which was not made here; choose another folder"
        )
