"""What the head of our Ray and the nodes that join it have in common."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Scores of a chunk pass through it, weights never do."""
MAX_BASE = 20
"""Longest folder in which Ray's own may be made: its sockets lie 86 characters deeper, and their
paths must stay under 108 bytes."""


def ray_environment(token: str) -> dict[str, str]:
    """Environment of every process of a Ray that only holders of `token` may use."""
    return {
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Each actor's device is asked for; without one, Ray would hide the GPUs from the others.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Asked to end, a node ends; nothing of ours is moved elsewhere first.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


def node_resource(rank: int) -> str:
    """The resource by which a worker is placed on the job's `rank`-th node."""
    return f"golf_node_{rank}"


@contextlib.contextmanager
def ray_folder() -> Iterator[Path]:
    """A folder for Ray's, gone at the end.

    Ray opens its own to everyone, sockets and all; so it lies in one that only its owner enters.
    """
    base = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(
        prefix="golf-ray-",
        dir=base if len(base) <= MAX_BASE else "/tmp",
        ignore_cleanup_errors=True,
    ) as folder:
        yield Path(folder) / "r"
