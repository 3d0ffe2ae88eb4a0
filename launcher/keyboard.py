"""Single keys of a terminal, while something else is drawn there."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import TextIO

POLL_S = 0.2
ESCAPES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
           b"\x1b[5~": "left", b"\x1b[6~": "right"}  # fmt: skip
"""What arrow keys and, as the last two, page up and page down send."""


@contextlib.contextmanager
def keys_of(stream: TextIO, on_key: Callable[[str], None]) -> Iterator[bool]:
    """Call `on_key` from a thread of its own for every key; yields whether there are any.

    There are none where the stream is no terminal, or where another job has it: a shell's
    background job that changed its terminal would be stopped. Ctrl-C and Ctrl-Z work as ever.
    """
    if not stream.isatty() or os.tcgetpgrp(stream.fileno()) != os.getpgrp():
        yield False
        return
    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    ended = threading.Event()
    reader = threading.Thread(target=_read, args=(descriptor, on_key, ended), daemon=True)
    tty.setcbreak(descriptor, termios.TCSANOW)
    reader.start()
    try:
        yield True
    finally:
        ended.set()
        reader.join()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int, on_key: Callable[[str], None], ended: threading.Event) -> None:
    while not ended.is_set():
        ready, _, _ = select.select([descriptor], [], [], POLL_S)
        if not ready:
            continue
        sent = os.read(descriptor, 32)
        if not sent:  # the terminal is gone
            return
        for key in _keys(sent):
            on_key(key)


def _keys(sent: bytes) -> list[str]:
    """Names of the keys that sent these bytes: one special key, or characters."""
    if sent in ESCAPES:
        return [ESCAPES[sent]]
    return [] if sent.startswith(b"\x1b") else list(sent.decode(errors="ignore"))
