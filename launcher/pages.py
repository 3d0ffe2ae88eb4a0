"""A list of seeds that is longer than its terminal, page by page.

1. Seeds at work or in trouble come first and stay on every page, in the upper half at most.
2. The others follow below them, a page at a time.
3. Pages turn by themselves, and by keys; a page that was asked for stays for longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from launcher.states import State
from launcher.watch import SeedView

TURN_S = 5.0
"""A page stays long enough to be read."""
ASKED_S = 30.0
"""So long stays a page that somebody turned to."""
ORDER = (
    State.RUNNING,
    State.FAILED,
    State.LOST,
    State.CANCELLED,
    State.SKIPPED,
    State.WAITING,
    State.PLANNED,
    State.DONE,
)
KEPT = frozenset({State.RUNNING, State.FAILED, State.LOST})
"""States whose seeds stay on every page."""
NEXT_KEYS = frozenset({"n", " ", "j", "right", "down"})
BACK_KEYS = frozenset({"p", "b", "k", "left", "up"})


@dataclass(frozen=True, kw_only=True)
class Page:
    """The rows of one page."""

    kept: tuple[SeedView, ...]
    """On every page."""
    turned: tuple[SeedView, ...]
    """On this one."""
    number: int
    """From 0."""
    count: int


def choose(seeds: tuple[SeedView, ...], room: int, number: int) -> Page:
    """The seeds on page `number`, counted round and round, of a terminal with `room` lines.

    Seeds that all fit keep their order; otherwise a line is left for the page's number.
    """
    if len(seeds) <= room:
        return Page(kept=(), turned=seeds, number=0, count=1)
    ranked = sorted(seeds, key=lambda seed: ORDER.index(seed.state))
    lines = max(1, room - 1)
    num_kept = min(lines // 2, sum(seed.state in KEPT for seed in seeds))
    others, size = ranked[num_kept:], lines - num_kept
    count = -(-len(others) // size)
    start = number % count * size
    return Page(
        kept=tuple(ranked[:num_kept]),
        turned=tuple(others[start : start + size]),
        number=number % count,
        count=count,
    )


class Pager:
    """Which page is shown."""

    def __init__(self, now: float) -> None:
        self._number = 0
        self._due_at = now + TURN_S

    def look(self, now: float, count: int) -> int:
        """The page to show of `count`; turns it if it is time."""
        if now >= self._due_at:
            self._number += 1
            self._due_at = now + TURN_S
        self._number %= count
        return self._number

    def press(self, key: str, now: float) -> bool:
        """Turn the page as a key asks; whether the key asks anything."""
        step = (key in NEXT_KEYS) - (key in BACK_KEYS)
        if step:
            self._number += step
            self._due_at = now + ASKED_S
        return step != 0
