from __future__ import annotations

import pytest
import torch

from golf.clock import TrainingClock

CPU = torch.device("cpu")


class HandClock:
    """Stands in for `time.perf_counter`, the process's clock; moves when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    hand = HandClock()
    monkeypatch.setattr("golf.clock.time.perf_counter", hand)
    return hand


def test_it_counts_milliseconds_from_its_start(hand: HandClock) -> None:
    clock = TrainingClock(CPU)
    assert clock.elapsed_ms == 0
    hand.seconds += 1.5
    assert clock.elapsed_ms == 1500


def test_it_stands_still_while_paused_and_goes_on_after(hand: HandClock) -> None:
    clock = TrainingClock(CPU)
    hand.seconds += 1
    with clock.paused():
        hand.seconds += 50
        assert clock.elapsed_ms == 1000
    assert clock.elapsed_ms == 1000
    hand.seconds += 2
    assert clock.elapsed_ms == 3000


def test_it_goes_on_after_a_pause_that_failed(hand: HandClock) -> None:
    clock = TrainingClock(CPU)

    def fail() -> None:
        hand.seconds += 50
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), clock.paused():
        fail()
    hand.seconds += 1
    assert clock.elapsed_ms == 1000


def test_a_resumed_run_s_time_before_counts(hand: HandClock) -> None:
    clock = TrainingClock(CPU, elapsed_ms=4000.0)
    hand.seconds += 1
    assert clock.elapsed_ms == 5000
