"""`golf stage DIR`: run the commands of one stage, so that any watcher can tell how it stands.

1. `stage.json` names the commands in order, each with the result file that says it is done.
2. The stage's lock is taken. The running command inherits it, so nobody else works in the folder
   while either lives.
3. Commands that an earlier attempt finished are skipped; the others run as subprocesses in their
   own process group, their output appended to `log.txt` byte for byte.
4. `status.json` says how it stands, and a heartbeat renews it.
5. A stop signal is handed to the command, which writes its checkpoint and ends; the stage is then
   `cancelled`, and the same command line takes it up again.

The commands of a stage are data: this file knows no training and no scheduler.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from golf.records import RunError, StagePaths, read_json, write_json

HEARTBEAT_S = 2.0
LOCK_WAIT_S = 60.0
"""How long a new attempt waits for an earlier one's command to finish its checkpoint."""
EXIT_FOREIGN_IMAGE = 2
"""As wrong usage: it would fail again."""
LAST_WORDS_BYTES = 8192
FULL_DISK = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
EXIT_STOPPED = 128 + signal.SIGTERM
"""How a command ends that was stopped, or must stop, and goes on when it is started again."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process of a stage."""

    name: str
    argv: tuple[str, ...]
    done: str | None = None
    """Result file, relative to the stage's folder, that a success leaves behind; without one the
    command always runs."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """`stage.json`."""

    stage: str
    seed: int | None
    commands: tuple[Command, ...]
    env: dict[str, str] = field(default_factory=dict)
    image_id: str = ""
    """The image to run in; empty where any will do."""


def read_spec(path: Path) -> StageSpec:
    """Read `stage.json`.

    Raises:
        RunError: the file is missing or names no commands.
    """
    raw = read_json(path)
    try:
        if raw is None:
            raise KeyError("no such file")
        commands = tuple(
            Command(
                name=command["name"],
                argv=tuple(command["argv"]),
                done=command.get("done"),
            )
            for command in raw["commands"]
        )
        return StageSpec(
            stage=raw["stage"],
            seed=raw["seed"],
            commands=commands,
            env=dict(raw.get("env", {})),
            image_id=raw.get("image_id", ""),
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} describes no stage ({error}); golf-launch writes it") from error


def run_stage(folder: Path) -> int:
    """Run what the stage still lacks.

    Returns:
        0 when every command is done, else the failed command's exit code, or 128 + the signal
        that stopped the stage.

    Raises:
        RunError: `stage.json` is unusable, or another process works on the stage.
    """
    paths = StagePaths(folder.resolve())
    spec = read_spec(paths.spec)
    with _locked(paths.root / "stage.lock") as lock:
        return _Stage(paths, spec, lock).run()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    deadline = time.monotonic() + LOCK_WAIT_S
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"another process works on {path.parent}; wait for it or cancel it"
                    ) from None
                time.sleep(0.2)
        yield file


class _Status:
    """`status.json`: one writer's view, renewed by a heartbeat thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        before = read_json(path) or {}
        self.failed_before = {
            command["name"] for command in before.get("commands", ()) if command["exit_code"] != 0
        }
        self.fields: dict[str, Any] = {
            "state": "running",
            "reason": "",
            "command": None,
            "exit_code": None,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "image": os.environ.get("GOLF_IMAGE"),  # set by the entry point of our images
            "attempt": before.get("attempt", 0) + 1,
            "started_at": time.time(),
            "ended_at": None,
            "commands": [],
        }
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def attempt(self) -> int:
        return int(self.fields["attempt"])

    def start(self) -> None:
        self.update()
        self._thread.start()

    def update(self, **changes: Any) -> None:
        """Write the file; a full disk must not take the running command down with it."""
        with self._mutex:
            self.fields.update(changes, updated_at=time.time())
            try:
                write_json(self._path, self.fields)
            except OSError as error:
                print(f"golf stage: cannot write {self._path}: {error}", file=sys.stderr)

    def end(self, state: str, reason: str, exit_code: int) -> int:
        self._ended.set()
        self.update(state=state, reason=reason, exit_code=exit_code, ended_at=time.time())
        return exit_code

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self.update()


class _Stage:
    """The run of one attempt."""

    def __init__(self, paths: StagePaths, spec: StageSpec, lock: BinaryIO) -> None:
        self._paths = paths
        self._spec = spec
        self._lock = lock
        self._status = _Status(paths.status)
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped_by: signal.Signals | None = None

    def run(self) -> int:
        self._status.start()
        image = self._status.fields["image"]
        if self._spec.image_id and image != self._spec.image_id:
            reason = (
                f"runs in {f'image {image}' if image else 'no image of ours'}, and "
                f"container.image_id wants {self._spec.image_id}"
            )
            return self._status.end("failed", reason, EXIT_FOREIGN_IMAGE)
        with _handling(STOP_SIGNALS, self._on_signal), self._paths.log.open("ab", 0) as log:
            for command in self._spec.commands:
                if self._is_done(command):
                    continue
                if self._stopped_by is not None:
                    break
                exit_code = self._run_command(command, log)
                if exit_code == EXIT_STOPPED and self._stopped_by is None:
                    reason = f"{command.name} was stopped; started again it goes on"
                    return self._status.end("cancelled", reason, exit_code)
                if exit_code != 0 and self._stopped_by is None:
                    reason = _told(command, exit_code) + self._full_disk()
                    return self._status.end("failed", reason, exit_code)
                if exit_code != 0:
                    break
            else:
                return self._status.end("done", "", 0)
        assert self._stopped_by is not None
        return self._status.end(
            "cancelled", f"stopped by {self._stopped_by.name}", 128 + self._stopped_by
        )

    def _is_done(self, command: Command) -> bool:
        """A command may write its result and yet fail, as one over its budget does."""
        if command.done is None or command.name in self._status.failed_before:
            return False
        return (self._paths.root / command.done).exists()

    def _full_disk(self) -> str:
        """What the failed command's last words say of a full disk or quota, or nothing."""
        with self._paths.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            words = file.read().decode(errors="replace").rpartition("] $ ")[2]
        return next((f": {told}" for told in FULL_DISK if told in words), "")

    def _run_command(self, command: Command, log: BinaryIO) -> int:
        began = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))
        title = f"[{stamp}, attempt {self._status.attempt}] $ {shlex.join(command.argv)}\n"
        with contextlib.suppress(OSError):  # the disk is full; the command will tell
            log.write(title.encode())
        try:
            self._child = subprocess.Popen(
                _interpreted(command.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._spec.env},
                start_new_session=True,
                pass_fds=(self._lock.fileno(),),
                preexec_fn=prepare_child(),
            )
        except OSError as error:
            log.write(f"cannot start {command.argv[0]}: {error}\n".encode())
            return 127
        self._status.update(command=command.name)
        if self._stopped_by is not None:  # the signal came between the check and the start
            self._stop_child()
        returncode = self._child.wait()
        exit_code = returncode if returncode >= 0 else 128 - returncode  # as a shell tells it
        self._child = None
        record = {"name": command.name, "exit_code": exit_code, "seconds": time.time() - began}
        self._status.update(commands=[*self._status.fields["commands"], record])
        return exit_code

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._stopped_by = signal.Signals(signum)
        self._stop_child()

    def _stop_child(self) -> None:
        """Ask the command to stop with a checkpoint: SIGTERM, whichever signal reached us."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)


@contextlib.contextmanager
def _handling(
    signals: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _interpreted(argv: tuple[str, ...]) -> list[str]:
    """`golf`, `torchrun` and `python` by this interpreter, whatever the PATH says."""
    if argv[0] == "python":
        return [sys.executable, *argv[1:]]
    modules = {"golf": "golf", "torchrun": "torch.distributed.run"}
    if argv[0] in modules:
        return [sys.executable, "-m", modules[argv[0]], *argv[1:]]
    return list(argv)


def prepare_child() -> Callable[[], None] | None:
    """What a command does before it starts, on Linux.

    It is sent SIGTERM should this process be killed outright. It ignores SIGUSR2 until it handles
    it: some schedulers send their warning to every process of a job, and torchrun would die of it
    before its ranks have written their checkpoint. We pass the warning on as SIGTERM.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    return prepare


def _told(command: Command, exit_code: int) -> str:
    if exit_code <= 128:
        return f"{command.name} exited with code {exit_code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(exit_code - 128).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"{command.name} was killed by {name}{hint}"
    return f"{command.name} exited with code {exit_code}"
