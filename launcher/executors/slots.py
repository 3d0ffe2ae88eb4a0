"""Cores and GPUs of one machine, shared by all launches of a user through locked files.

A holder keeps one locked file for each core and each GPU it uses. The kernel frees the locks of a
dead process, so nothing has to be cleaned up. Waiters queue: each holds a ticket, a locked file
named by the time from which it waits, and only the holder of the oldest live ticket may take.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LockedFile = io.FileIO


def default_folder() -> Path:
    """The folder of locks, one for each user of the machine."""
    return Path(tempfile.gettempdir()) / f"golf-launch-{getpass.getuser()}" / "slots"


def try_lock(path: Path) -> LockedFile | None:
    """Lock a file, made if need be; None where somebody else holds it."""
    file = io.FileIO(path, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


class Slots:
    """The machine's cores and GPUs as locked files in one folder."""

    def __init__(self, folder: Path, *, num_cores: int, gpus: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._cores = [folder / f"core-{index}" for index in range(num_cores)]
        self._gpus = {name: folder / f"gpu-{name}" for name in gpus}

    @contextlib.contextmanager
    def queue(self) -> Iterator[Claim]:
        """Stand in line; leave it again at the end of the block, having taken or not."""
        path = self._folder / f"ticket-{time.time_ns():020d}-{os.getpid()}"
        ticket = try_lock(path)
        assert ticket is not None, "a new ticket is nobody else's"
        try:
            yield Claim(self, path)
        finally:
            path.unlink(missing_ok=True)
            ticket.close()

    def is_first(self, ticket: Path) -> bool:
        for other in sorted(self._folder.glob("ticket-*")):
            if other >= ticket:
                return True
            lock = try_lock(other)
            if lock is None:
                return False
            other.unlink(missing_ok=True)  # its process died in line
            lock.close()
        return True

    def take(self, num_cores: int, num_gpus: int) -> Taken | None:
        """Lock as many cores and GPUs, or nothing."""
        cores = _lock_some(self._cores, num_cores)
        gpus = _lock_some(list(self._gpus.values()), num_gpus)
        if len(cores) == num_cores and len(gpus) == num_gpus:
            names = [name for name, path in self._gpus.items() if path in gpus]
            return Taken([*cores.values(), *gpus.values()], names)
        for file in (*cores.values(), *gpus.values()):
            file.close()
        return None


class Claim:
    """A place in the line for cores and GPUs."""

    def __init__(self, slots: Slots, ticket: Path) -> None:
        self._slots = slots
        self._ticket = ticket

    def take(self, num_cores: int, num_gpus: int) -> Taken | None:
        """What was asked for, if it is our turn and all of it is free."""
        return self._slots.take(num_cores, num_gpus) if self._slots.is_first(self._ticket) else None


class Taken:
    """Locks held; a child that inherits the descriptors holds them as well."""

    def __init__(self, files: Sequence[LockedFile], gpus: Sequence[str]) -> None:
        self._files = files
        self.gpus = tuple(gpus)

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(file.fileno() for file in self._files)

    def release(self) -> None:
        for file in self._files:
            file.close()


def _lock_some(paths: Sequence[Path], wanted: int) -> dict[Path, LockedFile]:
    locked: dict[Path, LockedFile] = {}
    for path in paths:
        if len(locked) == wanted:
            break
        file = try_lock(path)
        if file is not None:
            locked[path] = file
    return locked
