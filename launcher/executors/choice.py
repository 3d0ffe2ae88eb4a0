"""Which executor an experiment was registered for."""

from __future__ import annotations

from launcher.errors import LaunchError
from launcher.executors.base import Executor
from launcher.experiment import Experiment


def executor_of(experiment: Experiment) -> Executor:
    """The executor of an experiment's jobs.

    Raises:
        LaunchError: it is unknown to this version.
    """
    name = experiment.registry["executor"]
    if name == "local":
        from launcher.executors.local import LocalExecutor
        from launcher.machine import this_machine

        return LocalExecutor(experiment, this_machine())
    if name == "slurm":
        from launcher.executors.slurm import SlurmExecutor
        from launcher.profile import profile_from

        return SlurmExecutor(experiment, profile_from(experiment.registry["profile"]))
    raise LaunchError(
        f"{experiment.name} was submitted by executor {name!r}, unknown to this version"
    )
