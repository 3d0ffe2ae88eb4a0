"""Averages of the weights: an exponential moving average (EMA) and a tight stochastic one (SWA).

Both live in float32 beside the weights. The EMA takes every step; SWA takes a snapshot now and then
while the learning rate is nearly gone and is their plain mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from golf.config import AveragingConfig, ConfigError, Job
from golf.model.flat import FlatParameters
from golf.optim.schedule import Schedule


class Averages:
    """EMA and SWA of a model's weights."""

    def __init__(self, flat: FlatParameters, config: AveragingConfig) -> None:
        self.flat, self.config = flat, config
        self.ema = flat.like_values()
        self.swa_sum = [torch.zeros_like(v) for v in self.ema]
        self.num_snapshots = 0

    @torch.no_grad()
    def update(self, completed_steps: int, lr_scale: float) -> None:
        """Take in the weights after a step, of which `completed_steps` have now been done."""
        for average, value in zip(self.ema, self.flat.values, strict=True):
            decay = self.config.ema_decay
            average.mul_(decay).add_(value.float(), alpha=1 - decay)
        if takes_snapshot(self.config, completed_steps, lr_scale):
            for total, value in zip(self.swa_sum, self.flat.values, strict=True):
                total.add_(value)
            self.num_snapshots += 1

    def named(self, which: str) -> dict[str, Tensor]:
        """Float32 tensors of `ema`, `swa` or `ema+swa`, by parameter name.

        Raises:
            ConfigError: `swa` is asked for and no snapshot was taken.
        """
        if which == "ema":
            return self.flat.unflatten(self.ema)
        if self.num_snapshots == 0:
            raise ConfigError(
                f"averaging.export={which!r}, but the learning rate never stayed low long enough "
                "for an SWA snapshot; lower averaging.swa_every or export ema"
            )
        swa = [total / self.num_snapshots for total in self.swa_sum]
        if which == "ema+swa":
            swa = [(a + b) / 2 for a, b in zip(self.ema, swa, strict=True)]
        return self.flat.unflatten(swa)


def takes_snapshot(config: AveragingConfig, completed_steps: int, lr_scale: float) -> bool:
    """Whether SWA takes the weights after this step."""
    return lr_scale < config.swa_start_scale and completed_steps % config.swa_every == 0


def check_export(job: Job) -> None:
    """Refuse before training to export an average that the run is bound to lack.

    Under a wall-clock budget the number of steps is not known; what is certain is refused.
    """
    config = job.averaging
    if config.export == "ema":
        return
    schedule = Schedule(job)
    steps = range(job.schedule.iterations)
    if schedule.budget_ms is None:
        possible = any(takes_snapshot(config, s + 1, schedule.lookup(s).lr_scale) for s in steps)
    else:
        possible = (
            config.swa_start_scale > 0
            and job.schedule.warmdown_iters > 0
            and job.schedule.iterations >= config.swa_every
        )
    if not possible:
        raise ConfigError(
            f"averaging.export={config.export!r} needs an SWA snapshot, and this schedule takes "
            "none: lower averaging.swa_every, raise averaging.swa_start_scale or "
            "schedule.warmdown_iters, or export ema"
        )
