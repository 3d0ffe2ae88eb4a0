"""What a run leaves behind: its paths, metrics lines, results, and how they are written.

A file is written whole or not at all (`write_json`, `replace_file`); a file that grows by lines
(`JsonLines`) may lose its last, half-written line and nothing else. Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class RunError(RuntimeError):
    """A run that cannot go on for a reason that its user can mend; the text names the fix."""


@dataclass(frozen=True)
class DataPaths:
    """`DATA/`: token shards in the challenge's format, tokenizer and manifest."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer.model"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    def shards(self, split: str) -> list[Path]:
        """Shards of `train` or `val`, in the order in which they are read."""
        return sorted(self.root.glob(f"fineweb_{split}_*.bin"))


@dataclass(frozen=True)
class TrainPaths:
    """`golf train --out DIR`."""

    root: Path

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def model(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoint"

    def average(self, name: str) -> Path:
        return self.root / "averages" / f"{name}.safetensors"


@dataclass(frozen=True)
class EvalPaths:
    """`golf eval --out DIR`."""

    root: Path

    @property
    def plan(self) -> Path:
        """What is evaluated and how; its SHA-256 starts the ledger's chain."""
        return self.root / "plan.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    def journal(self, protocol: str) -> Path:
        """Where an evaluation records its chunks: the ledger, or plain scores without training."""
        return self.ledger if protocol == "ttt" else self.root / "scores.jsonl"

    @property
    def progress(self) -> Path:
        """Where the evaluation stands, rewritten as it goes on."""
        return self.root / "progress.json"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def nll(self) -> Path:
        return self.root / "nll.npy"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoint"


@dataclass(frozen=True)
class StagePaths:
    """A stage's folder (`seeds/<seed>/train`, `.../eval`, `prepare`), as `golf stage` keeps it."""

    root: Path

    @property
    def spec(self) -> Path:
        """The commands of the stage, written by the launcher."""
        return self.root / "stage.json"

    @property
    def status(self) -> Path:
        """The stage's own word on how it stands, with a heartbeat."""
        return self.root / "status.json"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and takes `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any | None:
    """The file's value, or None where there is no such file.

    Raises:
        RunError: the file is no JSON; ours are written whole, so something else wrote it.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path} is no valid JSON ({error}); remove it or restore it") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file; an unfinished last line does not count."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise RunError(
            f"{path} holds a damaged line ({error}); restore it or start over"
        ) from error


class JsonLines:
    """Appends one JSON object a line.

    `keep` complete lines are kept and whatever follows them is cut, so that a resumed run goes on
    where its checkpoint stands.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True)[:keep] if path.exists() else []
        size_bytes = sum(len(line) for line in lines if line.endswith(b"\n"))
        self._file = path.open("ab")
        self._file.truncate(size_bytes)

    def append(self, value: dict[str, Any], sync: bool = False) -> None:
        """Write one line; with `sync` it is on disk when this returns."""
        self.append_bytes(json.dumps(value, allow_nan=False).encode(), sync)

    def append_bytes(self, line: bytes, sync: bool = False) -> None:
        self._file.write(line + b"\n")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
