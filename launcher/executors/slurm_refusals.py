"""What Slurm refuses, and which key of the profile or the job mends it."""

from __future__ import annotations

import re

from launcher.profile import SlurmConfig

KEYS = (
    ("invalid account", "account"),
    ("invalid qos", "qos"),
    ("invalid partition", "partition"),
    ("invalid feature", "constraint"),
    ("reservation is invalid|access denied to requested reservation", "reservation"),
    ("invalid node name", "exclude"),
    ("mail-type", "mail_type"),
    ("mail-user", "mail_user"),
)
"""Words of sbatch, and the key of `[slurm]` whose value it refused."""
OTHERS = (
    (
        "submitjoblimit|submit job limit|accounting/qos policy",
        "a limit of the account or QOS (slurm.account, slurm.qos of the profile) is reached; wait "
        "until jobs have ended, or ask for less",
    ),
    ("unrecognized option '--([a-z0-9-]+)", "take {0} out of slurm.sbatch in the profile"),
    ("licen[sc]e", "mend licenses in slurm.sbatch of the profile"),
    ("wckey", "set wckey in slurm.sbatch of the profile"),
    ("time limit", "lower resources.time_minutes, or choose another slurm.partition or slurm.qos"),
    ("memory", "lower resources.mem_gb, or set slurm.request_memory = false in the profile"),
    (
        "node configuration",
        "lower resources.* (gpus_per_node, cpus_per_task, mem_gb, time_minutes) or mend gpu_type, "
        "partition, qos and constraint of [slurm] in the profile; golf-launch doctor shows what "
        "the site has",
    ),
)


def fix_of(words: str, slurm: SlurmConfig) -> str:
    """What to change after sbatch has said that; nothing for words that are not known."""
    for pattern, key in KEYS:
        if re.search(pattern, words, re.IGNORECASE):
            value = getattr(slurm, key)
            now = f"it is {value!r}" if value else "it is not set"
            return f"mend slurm.{key} in the profile, {now}"
    for pattern, fix in OTHERS:
        found = re.search(pattern, words, re.IGNORECASE)
        if found:
            return fix.format(*found.groups())
    return ""
