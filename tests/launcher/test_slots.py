from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launcher.executors.slots import Slots, Taken


def taken(some: Taken | None) -> Taken:
    assert some is not None
    return some


def test_no_more_is_taken_than_there_is_and_what_is_released_is_free_again(tmp_path: Path) -> None:
    slots = Slots(tmp_path, num_cores=3, gpus=())
    first = taken(slots.take(2, 0))
    assert slots.take(2, 0) is None
    rest = taken(slots.take(1, 0))
    first.release()
    again = taken(slots.take(2, 0))
    for some in (rest, again):
        some.release()


def test_a_taker_of_gpus_is_told_which_and_nobody_else_gets_them(tmp_path: Path) -> None:
    slots = Slots(tmp_path, num_cores=8, gpus=("0", "1", "2"))
    first, second = taken(slots.take(1, 2)), taken(slots.take(1, 1))
    assert (first.gpus, second.gpus) == (("0", "1"), ("2",))
    assert slots.take(1, 1) is None
    for some in (first, second):
        some.release()


def test_who_waits_longer_takes_first_even_where_less_would_be_enough(tmp_path: Path) -> None:
    slots = Slots(tmp_path, num_cores=2, gpus=())
    running = taken(slots.take(1, 0))
    with slots.queue() as large, slots.queue() as small:
        assert large.take(2, 0) is None
        assert small.take(1, 0) is None
        running.release()
        assert small.take(1, 0) is None
        both = taken(large.take(2, 0))
    with slots.queue() as small:
        assert small.take(1, 0) is None
        both.release()
        taken(small.take(1, 0)).release()


def test_the_kernel_frees_what_a_dead_process_held_and_its_place_in_the_line(
    tmp_path: Path,
) -> None:
    code = f"""
import os, pathlib
from launcher.executors.slots import Slots
slots = Slots(pathlib.Path({str(tmp_path)!r}), num_cores=1, gpus=())
with slots.queue():
    assert slots.take(1, 0)
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert list(tmp_path.glob("ticket-*"))
    slots = Slots(tmp_path, num_cores=1, gpus=())
    with slots.queue() as claim:
        taken(claim.take(1, 0)).release()
    assert not list(tmp_path.glob("ticket-*"))
