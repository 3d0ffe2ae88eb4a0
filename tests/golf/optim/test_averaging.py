from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from golf.config import AveragingConfig, ConfigError, Job, job_from_sections
from golf.model.flat import FlatParameters
from golf.optim.averaging import Averages, check_export


class Walk:
    """A model of one weight in each dtype, whose value is set step by step."""

    def __init__(self, start: float, **settings: Any) -> None:
        self.model = nn.Module()
        self.model.a = nn.Parameter(torch.full((3,), start))
        self.model.b = nn.Parameter(torch.full((2, 2), start, dtype=torch.bfloat16))
        self.flat = FlatParameters(self.model)
        self.averages = Averages(self.flat, AveragingConfig(**settings))

    def go(self, values: list[float], scales: list[float] | None = None) -> None:
        for step, value in enumerate(values):
            for buffer in self.flat.values:
                buffer.fill_(value)
            self.averages.update(step + 1, scales[step] if scales else 1.0)

    def value(self, which: str) -> float:
        named = self.averages.named(which)
        assert {n: (t.dtype, t.shape) for n, t in named.items()} == {
            "a": (torch.float32, (3,)),
            "b": (torch.float32, (2, 2)),
        }
        (value,) = {x for t in named.values() for x in t.flatten().tolist()}
        return float(value)


def test_the_ema_starts_with_the_starting_weights_and_decays_every_step() -> None:
    walk = Walk(8.0, ema_decay=0.75)
    assert walk.value("ema") == 8.0
    walk.go([4.0, 0.0, 16.0])
    assert walk.value("ema") == ((8 * 0.75 + 4 * 0.25) * 0.75 + 0) * 0.75 + 16 * 0.25


def test_a_decay_of_zero_is_the_last_weights() -> None:
    walk = Walk(8.0, ema_decay=0.0)
    walk.go([4.0, 2.0])
    assert walk.value("ema") == 2.0


def test_the_average_of_bfloat16_weights_keeps_float32_precision() -> None:
    walk = Walk(1.0, ema_decay=0.999)
    walk.go([2.0])
    assert walk.value("ema") == pytest.approx(1.001, abs=1e-6)


def test_swa_is_the_plain_mean_of_every_nth_step_while_the_rate_is_low() -> None:
    walk = Walk(0.0, swa_every=2, swa_start_scale=0.5)
    walk.go([1, 2, 3, 4, 5, 6, 7, 8], scales=[1, 0.4, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert walk.averages.num_snapshots == 3
    assert walk.value("swa") == pytest.approx((2 + 6 + 8) / 3)


def test_both_is_the_mean_of_the_two() -> None:
    walk = Walk(0.0, ema_decay=0.5, swa_every=1, swa_start_scale=1.0)
    walk.go([8.0, 4.0], scales=[0.5, 0.5])
    assert walk.value("ema") == 4.0
    assert walk.value("swa") == 6.0
    assert walk.value("ema+swa") == 5.0


def test_asking_for_an_average_changes_none() -> None:
    walk = Walk(0.0, ema_decay=0.5, swa_every=1, swa_start_scale=1.0)
    walk.go([8.0], scales=[0.5])
    before = walk.value("ema")
    walk.value("ema+swa")
    assert (walk.value("ema"), walk.value("swa")) == (before, 8.0)


@pytest.mark.parametrize("which", ["swa", "ema+swa"])
def test_without_a_snapshot_there_is_no_swa(which: str) -> None:
    walk = Walk(0.0)
    walk.go([1.0])
    with pytest.raises(
        ConfigError, match=r"averaging\.export='.*swa', but the learning rate never"
    ):
        walk.averages.named(which)


# ---- what is refused before training ----


def job(export: str, schedule: dict[str, Any], **averaging: Any) -> Job:
    base = {"iterations": 100, "warmdown_iters": 20, "max_wallclock_seconds": 0}
    return job_from_sections(
        {
            "schedule": base | schedule,
            "averaging": {"export": export, "swa_every": 2, **averaging},
        }
    )


@pytest.mark.parametrize("export", ["swa", "ema+swa"])
@pytest.mark.parametrize(
    ("schedule", "averaging"),
    [
        ({"warmdown_iters": 0}, {}),  # the rate never falls
        ({}, {"swa_start_scale": 0.0}),  # it is never low enough
        ({}, {"swa_every": 101}),  # no step is due
        ({"iterations": 97, "warmdown_iters": 97}, {"swa_every": 60}),  # due while it is high
        ({"max_wallclock_seconds": 9}, {"swa_every": 101}),
        ({"max_wallclock_seconds": 9, "warmdown_iters": 0}, {}),
        ({"max_wallclock_seconds": 9}, {"swa_start_scale": 0.0}),
    ],
)
def test_exporting_swa_from_a_run_that_takes_no_snapshot_is_refused_before_training(
    export: str, schedule: dict[str, Any], averaging: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"needs an SWA snapshot.*or export ema"):
        check_export(job(export, schedule, **averaging))
    check_export(job("ema", schedule, **averaging))


@pytest.mark.parametrize("seconds", [0, 9])
def test_exporting_swa_from_a_run_that_takes_snapshots_is_fine(seconds: float) -> None:
    check_export(job("swa", {"max_wallclock_seconds": seconds}))


def test_the_last_step_alone_may_be_the_snapshot() -> None:
    """Of 100 steps with 20 of warmdown, step 100 runs at a scale of 0.05."""
    fine = job("swa", {}, swa_every=100, swa_start_scale=0.06)
    check_export(fine)
    with pytest.raises(ConfigError, match="needs an SWA snapshot"):
        check_export(replace(fine, averaging=replace(fine.averaging, swa_start_scale=0.05)))
