"""A Ray of one's own, on this node or on all nodes of a job: started for one evaluation and ended
with it.

1. It gets free ports, a folder of its own, a fresh token that only its own processes know, and
   exactly the CPUs and GPUs it is told to hand out. Ray listens on every interface of its node: the
   token is what keeps others out.
2. Where the job has more nodes, they are invited and must join within a limit.
3. A start that fails is an error that quotes Ray's own words.
4. At the end only the processes of this Ray are stopped; should this process be killed, they die
   with it (Ray binds them to their parent on Linux).
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from golf.records import RunError
from launcher.fanout.meeting import Invitation, Meeting
from launcher.fanout.place import own_address
from launcher.fanout.ray_settings import OBJECT_STORE_BYTES, node_resource, ray_environment

JOIN_TIMEOUT_S = 180.0
"""Shared folders may show a new file a minute late."""
POLL_S = 0.2


@contextmanager
def private_ray(
    folder: Path, num_cpus: int, num_gpus: int, num_nodes: int = 1, meeting: Meeting | None = None
) -> Iterator[None]:
    """Start a Ray of which each node hands out `num_cpus` and `num_gpus`; stop it at the end.

    Its files go to `folder`, whose path must be short: sockets lie in there. More than one node
    needs the `meeting` of their job.

    Raises:
        RunError: it does not start, here or on another node.
    """
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)  # unset, a local Ray asks its callers for a token
    token = secrets.token_hex(32)
    os.environ |= ray_environment(token)
    try:
        ray.init(
            "local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources={node_resource(0): num_cpus},
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
            _node_ip_address="127.0.0.1" if num_nodes == 1 else own_address(),
        )
    except Exception as error:
        ray.shutdown()
        raise RunError(f"Ray does not start here: {error}") from error
    try:
        if num_nodes == 1:
            yield
        else:
            assert meeting is not None, "several nodes meet somewhere"
            invitation = Invitation(
                session=secrets.token_hex(4),
                address=_gcs_address(),
                token=token,
                num_cpus=num_cpus,
                num_gpus=num_gpus,
            )
            with _joined(meeting, invitation, num_nodes):
                yield
    finally:
        ray.shutdown()


def _gcs_address() -> str:
    address: str = ray.get_runtime_context().gcs_address
    return address


def missing_nodes(num_nodes: int) -> list[int]:
    """Those of the job's nodes that this Ray lacks, by their rank."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [set(node["Resources"]) for node in nodes if node["Alive"]]
    return [
        rank
        for rank in range(num_nodes)
        if not any(node_resource(rank) in resources for resources in alive)
    ]


@contextmanager
def _joined(meeting: Meeting, invitation: Invitation, num_nodes: int) -> Iterator[None]:
    """Have the other nodes join, and let them go at the end."""
    meeting.invite(invitation)
    try:
        _wait_for_nodes(meeting, invitation.address, num_nodes)
        yield
    finally:
        meeting.withdraw()


def _wait_for_nodes(meeting: Meeting, address: str, num_nodes: int) -> None:
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while missing := missing_nodes(num_nodes):
        reports = meeting.reports()
        failed = [f"{report.name}: {report.problem}" for report in reports if report.problem]
        if failed:
            raise RunError(f"Ray does not start on every node of this job. {'; '.join(failed)}")
        if time.monotonic() > deadline:
            names = {report.rank: report.name for report in reports}
            absent = ", ".join(names.get(rank, f"the job's task {rank}") for rank in missing)
            raise RunError(
                f"{absent} did not join the Ray at {address} within {JOIN_TIMEOUT_S:.0f} s; the "
                "nodes of a job must reach each other on any port and see its folder"
            )
        time.sleep(POLL_S)
