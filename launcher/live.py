"""The live loop: views drawn in place as they come, and pages turned between them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.live import Live

from launcher.clock import Clock, SystemClock
from launcher.dashboard import num_pages, render
from launcher.keyboard import keys_of
from launcher.pages import Pager
from launcher.watch import View


def run_live(
    views: Iterable[View],
    console: Console,
    stdin: TextIO | None = None,
    clock: Clock | None = None,
) -> View:
    """Draw views as they come, in place; returns the last."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        screen = _Screen(live, clock or SystemClock())
        with keys_of(stdin or sys.stdin, screen.press) as has_keys:
            screen.has_keys = has_keys
            for view in views:
                screen.show(view)
    assert screen.view is not None, "there is always a first view"
    return screen.view


class _Screen:
    """The latest view at its page; keys come from another thread than views."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self.view: View | None = None
        self.has_keys = False
        self._live = live
        self._clock = clock
        self._pager = Pager(clock.now())
        self._mutex = threading.Lock()

    def show(self, view: View) -> None:
        with self._mutex:
            self.view = view
            self._draw(view)

    def press(self, key: str) -> None:
        with self._mutex:
            if self._pager.press(key, self._clock.now()) and self.view is not None:
                self._draw(self.view)

    def _draw(self, view: View) -> None:
        size, hint = self._live.console.size, not view.is_over
        count = num_pages(view, size.width, size.height, hint=hint)
        page = self._pager.look(self._clock.now(), count)
        drawn = render(view, size.width, size.height, hint=hint, page=page, has_keys=self.has_keys)
        self._live.update(drawn, refresh=True)
