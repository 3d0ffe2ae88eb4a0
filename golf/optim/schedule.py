"""Learning-rate scale and Muon momentum of each step, and whether weights are fake-quantized.

The schedule is data with one `lookup`: full speed, then a linear fall to 0 ("warmdown"), whose end
is known in steps or, under a wall-clock budget, predicted from the mean step time so far.
"""

from __future__ import annotations

from dataclasses import dataclass

from golf.config import Job


@dataclass(frozen=True)
class StepPlan:
    """What one step runs with."""

    lr_scale: float
    """Multiplies every learning rate."""
    muon_momentum: float
    fake_quant: bool
    """Late quantization-aware training is on."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of a job."""

    job: Job

    def lookup(self, step: int, elapsed_ms: float = 0.0) -> StepPlan:
        """Plan of `step`, counted from 0, after `elapsed_ms` of training."""
        scale = self._lr_scale(step, elapsed_ms)
        return StepPlan(
            lr_scale=scale,
            muon_momentum=self._muon_momentum(step),
            fake_quant=scale < self.job.schedule.late_qat_threshold,
        )

    @property
    def budget_ms(self) -> float | None:
        """The wall-clock budget of training, if there is one."""
        return self.job.schedule.max_wallclock_seconds * 1000 or None

    def _lr_scale(self, step: int, elapsed_ms: float) -> float:
        config = self.job.schedule
        if config.warmdown_iters == 0:
            return 1.0
        if self.budget_ms is None:
            return min(1.0, max(config.iterations - step, 0) / config.warmdown_iters)
        mean_step_ms = elapsed_ms / max(step, 1)
        remaining_ms = max(self.budget_ms - elapsed_ms, 0.0)
        return min(1.0, remaining_ms / max(config.warmdown_iters * mean_step_ms, 1e-9))

    def _muon_momentum(self, step: int) -> float:
        config = self.job.optim
        done = min(step / max(config.muon_momentum_warmup_steps, 1), 1.0)
        start = config.muon_momentum_warmup_start
        return start + (config.muon_momentum - start) * done
