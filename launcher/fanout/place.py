"""This process's place among the nodes of a Slurm job, and the address at which others reach it."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from golf.records import RunError

SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True, kw_only=True)
class Place:
    """One task of a step that runs one task on each node."""

    rank: int
    name: str
    """The node's, as Slurm calls it."""
    attempt: str
    """Differs between jobs, and between the attempts of one that was put back into the queue."""

    @classmethod
    def from_slurm(cls, env: Mapping[str, str]) -> Place:
        """Read it from what Slurm tells each task.

        Raises:
            RunError: this is no task of a Slurm job.
        """
        try:
            return cls(
                rank=int(env["SLURM_PROCID"]),
                name=env.get("SLURMD_NODENAME") or socket.gethostname(),
                attempt=f"{env['SLURM_JOB_ID']}.{env.get('SLURM_RESTART_COUNT') or '0'}",
            )
        except KeyError as error:
            raise RunError(
                f"{error.args[0]} is not set: this runs as a task of a Slurm job, which "
                "golf-launch submits; a container must hand Slurm's variables on"
            ) from None


def node_name() -> str:
    """This node's name, as Slurm calls it, or else as it calls itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def own_address() -> str | None:
    """The address that the cluster knows this node by; None leaves the choice to Ray.

    A node may have several. The one that its name in Slurm stands for is the one by which nodes
    reach each other; a name that stands for this machine alone, or for another one, is no help.
    """
    for name in (node_name(), socket.gethostname()):
        try:
            address = socket.gethostbyname(name)
        except OSError:
            continue
        if not ipaddress.ip_address(address).is_loopback and _is_ours(address):
            return address
    return None


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # it has no address
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def _is_ours(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
