"""An experiment laboratory in the test's folder, and a clock that needs no time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import FakeClock, Lab

from launcher.clock import SystemClock
from launcher.submit import cancel_and_wait


@pytest.fixture(autouse=True)
def no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster profile of whoever runs the tests has no say in them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "runs", tmp_path / "slots")
    yield lab
    for experiment in lab.experiments:
        keys = [s.key for s in experiment.stages]
        cancel_and_wait(experiment, lab.executor(experiment), keys, SystemClock())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
