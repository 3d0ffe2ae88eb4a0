from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golf.config import Job, job_from_sections
from golf.optim.schedule import Schedule


def schedule(**settings: Any) -> Schedule:
    base = {"iterations": 100, "warmdown_iters": 20, "max_wallclock_seconds": 0}
    return Schedule(job_from_sections({"schedule": base | settings}))


def test_scales_and_the_start_of_qat_are_the_public_implementation_s(golden_dir: Path) -> None:
    with np.load(golden_dir / "train.npz") as file:
        hp, scales, qat = json.loads(str(file["hp"])), file["lr_scale"], int(file["qat_step"])
    golden = schedule(
        iterations=hp["iterations"],
        warmdown_iters=hp["warmdown_iters"],
        late_qat_threshold=hp["late_qat_threshold"],
    )
    plans = [golden.lookup(step) for step in range(hp["iterations"])]
    assert [plan.lr_scale for plan in plans] == scales.tolist()
    assert [plan.fake_quant for plan in plans] == [step >= qat for step in range(len(plans))]


def test_without_a_clock_the_scale_falls_linearly_over_the_last_steps() -> None:
    steps = schedule()
    assert steps.budget_ms is None
    scales = [steps.lookup(step).lr_scale for step in (0, 79, 80, 81, 90, 99, 100, 105)]
    assert scales == pytest.approx([1, 1, 1, 0.95, 0.5, 0.05, 0, 0])


def test_time_does_not_matter_without_a_clock() -> None:
    assert schedule().lookup(90, 1e9) == schedule().lookup(90, 0.0)


@pytest.mark.parametrize(
    ("step", "elapsed_ms", "scale"),
    [
        (0, 0.0, 1.0),  # nothing known of the speed yet
        (1000, 100_000.0, 1.0),  # 100 ms a step: 350 s of warmdown, 500 s left
        (2500, 250_000.0, 1.0),  # 350 s left: it begins
        (3000, 300_000.0, 300 / 350),
        (5900, 590_000.0, 10 / 350),
        (6000, 600_000.0, 0.0),
        (6001, 600_100.0, 0.0),  # past the end
        (3000, 150_000.0, 1.0),  # 50 ms a step: 175 s of warmdown, 450 s left
    ],
)
def test_with_a_clock_the_end_is_predicted_from_the_mean_step_time(
    step: int, elapsed_ms: float, scale: float
) -> None:
    timed = Schedule(Job())
    assert timed.budget_ms == 600_000
    assert timed.lookup(step, elapsed_ms).lr_scale == pytest.approx(scale)


def test_no_warmdown_never_lowers_the_rate() -> None:
    assert schedule(warmdown_iters=0).lookup(99).lr_scale == 1.0


@pytest.mark.parametrize(
    ("step", "momentum"), [(0, 0.92), (375, 0.9375), (750, 0.955), (1500, 0.99), (9000, 0.99)]
)
def test_muon_s_momentum_rises_over_the_first_1500_steps(step: int, momentum: float) -> None:
    assert Schedule(Job()).lookup(step).muon_momentum == pytest.approx(momentum)


def test_without_momentum_warm_up_it_is_full_after_the_first_step() -> None:
    job = job_from_sections({"optim": {"muon_momentum_warmup_steps": 0}})
    assert Schedule(job).lookup(1).muon_momentum == pytest.approx(0.99)


def test_quantization_aware_training_starts_under_its_threshold_not_at_it() -> None:
    steps = schedule(late_qat_threshold=0.25)
    assert [steps.lookup(s).fake_quant for s in (94, 95, 96)] == [False, False, True]
    assert not schedule(late_qat_threshold=0.0).lookup(99).fake_quant
