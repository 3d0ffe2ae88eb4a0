"""More seeds than lines: which are shown, when pages turn, and keys in a real terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from lab import FakeClock
from rich.console import Console

from launcher import dashboard
from launcher.live import run_live
from launcher.pages import ASKED_S, TURN_S, Pager, choose
from launcher.progress import Progress
from launcher.states import Observation, StageStatus, State
from launcher.watch import SeedView, StageView, View


def seed(number: int, state: State) -> SeedView:
    seen = Observation(state=state, evidence="job 1", seen_at=0.0)
    reason = "out of memory" if state is State.FAILED else ""
    status = StageStatus(observation=seen, reason=reason, attempt=1)
    stage = StageView(key=f"{number}/train", kind="train", status=status, log=Path("log"))
    return SeedView(seed=number, state=state, stage=stage, stages=(stage,), progress=Progress())


def view_of(*states: State) -> View:
    seeds = tuple(seed(1000 + index, state) for index, state in enumerate(states))
    return View(root=Path("/runs/many-1"), now=9.0, created_at=0.0, prepare=None, seeds=seeds)


MANY = view_of(
    *[State.DONE] * 60, State.FAILED, *[State.RUNNING] * 3, *[State.WAITING] * 135, State.LOST
)
"""Of 200 seeds, 60 are done, two went wrong and three run."""
KEPT = {1060, 1061, 1062, 1063, 1199}


def text_of(view: View, page: int = 0, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(dashboard.render(view, width, height, page=page))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def numbers_in(text: str) -> list[int]:
    return [int(line[:4]) for line in text.splitlines() if line[:4].isdigit()]


def test_what_fits_keeps_its_order_and_has_one_page() -> None:
    few = view_of(State.DONE, State.WAITING, State.RUNNING)
    page = choose(few.seeds, room=3, number=7)
    assert (page.turned, page.kept, page.number, page.count) == (few.seeds, (), 0, 1)
    assert "page" not in text_of(few)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (80, 16)])
def test_every_page_fits_shows_trouble_and_work_and_all_pages_show_every_seed_once(
    width: int, height: int
) -> None:
    count = dashboard.num_pages(MANY, width, height)
    assert count > 1
    turned: list[int] = []
    for page in range(count):
        text = text_of(MANY, page, width, height)
        assert len(text.splitlines()) <= height
        assert f"page {page + 1} of {count}" in text
        for words in ("● 3 running", "✘ 1 failed", "○ 135 waiting", "✔ 60 done"):
            assert words in text
        kept, below = text.split("┄┄┄┄")
        assert set(numbers_in(kept)) <= KEPT
        assert "● train" in kept
        turned += numbers_in(below)
        if height >= 24:
            assert set(numbers_in(kept)) == KEPT
            assert "seed 1060 failed: out of memory" in text
    everything = set(turned) | set(numbers_in(kept))
    assert (len(turned), everything) == (len(set(turned)), {s.seed for s in MANY.seeds})
    assert text_of(MANY, count, width, height) == text_of(MANY, 0, width, height)


def test_what_waits_stands_before_what_is_done() -> None:
    page = choose(MANY.seeds, room=12, number=0)
    assert {seed.state for seed in page.turned} == {State.WAITING}


def test_many_at_work_leave_half_of_the_lines_to_pages() -> None:
    page = choose(view_of(*[State.RUNNING] * 50).seeds, room=11, number=1)
    assert (len(page.kept), len(page.turned), page.count) == (5, 5, 9)


def test_pages_turn_by_themselves_and_stay_longer_where_somebody_asked(clock: FakeClock) -> None:
    pager = Pager(clock.now())
    clock.sleep(TURN_S - 0.1)
    assert pager.look(clock.now(), 3) == 0
    clock.sleep(0.1)
    assert pager.look(clock.now(), 3) == 1
    assert pager.press("n", clock.now())
    assert pager.look(clock.now(), 3) == 2
    clock.sleep(ASKED_S - 0.1)
    assert pager.look(clock.now(), 3) == 2
    clock.sleep(0.1)
    assert pager.look(clock.now(), 3) == 0
    assert pager.press("left", clock.now())
    assert pager.look(clock.now(), 3) == 2
    assert not pager.press("x", clock.now())


def test_without_a_terminal_to_type_on_pages_turn_by_time_alone(clock: FakeClock) -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    shown = []

    def views():
        for _ in range(3):
            yield MANY
            assert isinstance(console.file, io.StringIO)
            shown.append(console.file.getvalue())
            clock.sleep(TURN_S)

    with Path(os.devnull).open() as stdin:
        run_live(views(), console, stdin=stdin, clock=clock)
    assert "page 1 of" in shown[0]
    assert "page 2 of" not in shown[0]
    assert "page 2 of" in shown[1]
    assert "page 3 of" in shown[2]
    assert "n next" not in shown[2]


IN_A_TERMINAL = """
import fcntl, os, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from rich.console import Console
from launcher.live import run_live
from test_paging import MANY
def views():
    while True:
        yield MANY
        time.sleep(60)
try:
    run_live(views(), Console())
except KeyboardInterrupt:
    os._exit(130)
"""


class Terminal:
    """The other end of a terminal in which the dashboard runs."""

    def __init__(self) -> None:
        self.end, own = pty.openpty()
        termios.tcsetwinsize(own, (24, 80))
        here = Path(__file__).resolve()
        folders = [str(here.parents[2]), str(here.parent)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL], stdin=own, stdout=own, stderr=own,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(folders)},
        )  # fmt: skip
        os.close(own)
        os.set_blocking(self.end, False)

    def wait_for(self, words: str) -> None:
        seen, deadline = "", time.monotonic() + 30
        while words not in seen:
            assert time.monotonic() < deadline, f"waited for {words!r}, saw {seen!r}"
            try:
                seen += os.read(self.end, 65536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.02)

    def type(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.end)[3] & termios.ECHO)


def test_keys_turn_pages_at_once_and_leave_the_terminal_as_it_was() -> None:
    terminal = Terminal()
    try:
        terminal.wait_for("page 1 of")
        terminal.type(b"n")
        terminal.wait_for("page 2 of")
        terminal.type(b"\x1b[C")
        terminal.wait_for("page 3 of")
        terminal.type(b"p")
        terminal.wait_for("page 2 of")
        assert not terminal.echoes()
        terminal.type(b"\x03")
        assert terminal.process.wait(timeout=30) == 130
        assert terminal.echoes()
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.end)
