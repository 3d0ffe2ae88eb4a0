"""A Ray of one's own on this machine: started for one evaluation and ended with it.

1. It gets free ports, a folder of its own, a fresh token that only its own processes know, and
   exactly the CPUs and GPUs it is told to hand out. The loopback address is asked for, but Ray may
   register the host's: the token is what keeps others out.
2. A start that fails is an error that quotes Ray's own words.
3. At the end only the processes of this Ray are stopped; should this process be killed, they die
   with it (Ray binds them to their parent on Linux).
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from golf.records import RunError

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Scores of a chunk pass through it, weights never do."""


@contextmanager
def private_ray(folder: Path, num_cpus: int, num_gpus: int) -> Iterator[None]:
    """Start a Ray that hands out `num_cpus` and `num_gpus`, and stop it at the end.

    Its files go to `folder`, whose path must be short: sockets lie in there.

    Raises:
        RunError: it does not start.
    """
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)  # unset, a local Ray asks its callers for a token
    os.environ |= {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Each actor's device is asked for; without one, Ray would hide the GPUs from the others.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    try:
        ray.init(
            "local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
            _node_ip_address="127.0.0.1",
        )
    except Exception as error:
        ray.shutdown()
        raise RunError(f"Ray does not start here: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
