"""Reading files that grow: only what is new, and only the end of what is long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TAIL_BYTES = 64 * 1024


class JsonTail:
    """Follows a JSON-lines file; each poll reads the complete lines added since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def poll(self) -> list[dict[str, Any]]:
        """New lines. A file cut by a resumed run is read again from its start."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            self._offset = 0
            return []
        whole = data[: data.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            # Cut and grown past our place between two polls: our place lies inside a line.
            restart, self._offset = self._offset > 0, 0
            return self.poll() if restart else []
        self._offset += len(whole)
        return lines


def tail_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file, at most `count` and at most 64 KiB; carriage returns end
    lines too, so that a progress bar gives its last state."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line][-count:]


class TextTail:
    """Follows a log; each poll gives the complete lines added since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def poll(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [
            line.rpartition("\r")[2] for line in whole.decode(errors="replace").split("\n")[:-1]
        ]
