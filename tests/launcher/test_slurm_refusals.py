"""What is said to mend after a refusal of sbatch. Real refusals are tested on the test cluster."""

from __future__ import annotations

import pytest

from launcher.executors.slurm_refusals import fix_of
from launcher.profile import SlurmConfig

SLURM = SlurmConfig(account="lab", qos="fast", sbatch={"colour": "red"})


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (
            "Invalid account or account/partition combination specified",
            "mend slurm.account in the profile, it is 'lab'",
        ),
        ("Invalid qos specification", "mend slurm.qos in the profile, it is 'fast'"),
        (
            "invalid partition specified: x; Invalid partition name specified",
            "mend slurm.partition in the profile, it is not set",
        ),
        ("unrecognized option '--colour=red'", "take colour out of slurm.sbatch in the profile"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "lower resources.time"),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "a limit of the account or QOS (slurm.account, slurm.qos of the profile) is reached",
        ),
        ("Requested node configuration is not available", "lower resources.* (gpus_per_node"),
        ("Socket timed out on send/recv operation", ""),
    ],
)
def test_a_refusal_names_what_to_mend(words: str, fix: str) -> None:
    told = fix_of(words, SLURM)
    assert told.startswith(fix)
    assert bool(told) == bool(fix)
