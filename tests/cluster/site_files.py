"""Files of the test cluster: configuration, sockets, state folders and logs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SLURM_CONF = """\
ClusterName=golftest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports.controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
# Short times, so that tests need not wait for what sites wait minutes for.
SlurmdTimeout=8
SlurmctldTimeout=10
KillWait=5
MinJobAge={min_job_age}
InactiveLimit=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=100000,preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MaxArraySize=128
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000 "
    "Gres=gpu:{num_gpus}\n"
)
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge.socket
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.dbd}
SlurmUser=root
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


@dataclass(frozen=True)
class Ports:
    """Ports that were free a moment ago."""

    controller: int
    node1: int
    node2: int
    dbd: int
    database: int

    @classmethod
    def free(cls) -> Ports:
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(5)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            return cls(*(probe.getsockname()[1] for probe in probes))


class SiteFiles:
    """Every path of the site, and what is written there before it starts."""

    def __init__(
        self, root: Path, ports: Ports, nodes: Sequence[str], num_gpus: int, *, accounting: bool
    ) -> None:
        self.root = root
        self.ports = ports
        self._nodes = nodes
        self._num_gpus = num_gpus
        self._accounting = accounting
        self.slurm_conf = root / "slurm.conf"
        self.munge_key = root / "munge.key"
        self.munge_socket = root / "munge.socket"
        self.database = root / "database"
        self.database_socket = root / "mariadb.socket"

    def gpu(self, index: int) -> Path:
        return self.root / f"gpu{index}"

    def log(self, name: str) -> Path:
        return self.root / f"{name}.out.log"

    def write(self) -> None:
        host = socket.gethostname().partition(".")[0]
        (self.root / "state").mkdir()
        ports = (self.ports.node1, self.ports.node2)
        nodes = "".join(
            NODE.format(name=name, host=host, port=port, num_gpus=self._num_gpus)
            for name, port in zip(self._nodes, ports, strict=True)
        )
        accounting = (
            WITH_ACCOUNTING.format(port=self.ports.dbd, root=self.root) if self._accounting else ""
        )
        text = SLURM_CONF.format(
            host=host,
            ports=self.ports,
            root=self.root,
            accounting=accounting,
            nodes=nodes,
            min_job_age=2 if self._accounting else 300,
        )
        self.slurm_conf.write_text(text)
        devices = f"{self.root}/gpu[0-{self._num_gpus - 1}]"
        (self.root / "gres.conf").write_text(f"Name=gpu File={devices}\n")
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        (self.root / "plugstack.conf").write_text("")
        dbd = self.root / "slurmdbd.conf"
        dbd.touch(mode=0o600)
        dbd.write_text(SLURMDBD_CONF.format(ports=self.ports, root=self.root))
