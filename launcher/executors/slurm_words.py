"""Slurm's words in ours: its job states, and its reasons for letting a job wait.

From the tables JOB STATE CODES and JOB REASON CODES of the squeue manual.
"""

from __future__ import annotations

from launcher.states import TERMINAL, State

STATES = {
    "PENDING": State.WAITING,
    "REQUEUED": State.WAITING,
    "REQUEUE_FED": State.WAITING,
    "REQUEUE_HOLD": State.WAITING,
    "SPECIAL_EXIT": State.WAITING,
    "CONFIGURING": State.WAITING,
    "RUNNING": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "RESIZING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "COMPLETED": State.DONE,
    "CANCELLED": State.CANCELLED,
    "REVOKED": State.CANCELLED,
    "FAILED": State.FAILED,
    "TIMEOUT": State.FAILED,
    "DEADLINE": State.FAILED,
    "OUT_OF_MEMORY": State.FAILED,
    "BOOT_FAIL": State.LOST,
    "NODE_FAIL": State.LOST,
    "PREEMPTED": State.LOST,
}
OVER = frozenset(word for word, state in STATES.items() if state in TERMINAL)
ENDS = {
    "TIMEOUT": "reached its time limit (resources.time_minutes); "
    "golf-launch resume goes on from its checkpoint",
    "DEADLINE": "reached its deadline",
    "OUT_OF_MEMORY": "ran out of memory; give it more with --set resources.mem_gb=...",
    "BOOT_FAIL": "its node did not come up",
    "NODE_FAIL": "lost its node; golf-launch resume goes on from its checkpoint",
    "PREEMPTED": "was preempted; golf-launch resume goes on from its checkpoint",
    "CANCELLED": "cancelled in Slurm",
}
WAITS = {
    "None": "waits to be looked at by Slurm",
    "Priority": "waits behind jobs of higher priority",
    "Resources": "waits for free nodes",
    "Dependency": "waits for the stage before it",
    "BeginTime": "waits for its start time",
    "JobArrayTaskLimit": "waits for other seeds of its array",
    "ReqNodeNotAvail": "the nodes it may use are down or reserved",
    "Reservation": "waits for its reservation to begin",
    "Licenses": "waits for a licence",
    "Cleaning": "is being put back into the queue",
}
NEVER = {
    "AssocGrpGRES": "the account's limit of GPUs is used up",
    "AssocMaxGRESPerJob": "asks for more GPUs than the account allows a job",
    "AssocMaxJobsLimit": "the account's limit of jobs is reached",
    "AssocMaxWallDurationPerJobLimit": "asks for more time than the account allows",
    "BadConstraints": "no node can meet what it asks for",
    "DependencyNeverSatisfied": "the stage before it failed",
    "InvalidAccount": "its account is not valid; set slurm.account in the profile",
    "InvalidQOS": "its QOS is not valid; set slurm.qos in the profile",
    "launch failed requeued held": "held after a launch that failed on a node; look at "
    "scontrol show job, then scontrol release",
    "JobHoldMaxRequeue": "held after too many failed launches on nodes; look at scontrol show "
    "job, then scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "JobHeldUser": "held; release it with scontrol release",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "PartitionNodeLimit": "asks for more nodes than its partition has",
    "PartitionTimeLimit": "asks for more time than its partition allows; "
    "lower resources.time_minutes",
    "QOSMaxWallDurationPerJobLimit": "asks for more time than its QOS allows",
}
"""Reasons that need somebody to do something."""


def waiting_reason(reason: str) -> str:
    """Why a job waits, in words; Slurm's own where we know none."""
    word = reason.split(",")[0].strip("() ")
    if word in NEVER:
        return f"cannot start: {NEVER[word]} ({word})"
    if word in WAITS:
        return WAITS[word]
    if word.startswith(("Assoc", "QOS", "Max")):
        return f"cannot start yet: a limit of the account or QOS ({word})"
    return f"waits ({reason})"
