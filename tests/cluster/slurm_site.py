"""A real Slurm of two nodes on one machine, with eight pretended GPU devices a node.

1. Everything lies in one short folder of its own: keys, configuration, state, logs, sockets,
   device files. Ports are free ones. Nothing of a Slurm that the machine may have is touched.
2. munged, (MariaDB and slurmdbd,) slurmctld and two slurmd run in the foreground as our children.
3. All their processes, and those of their jobs, carry `SLURM_CONF` of this site in their
   environment; `stop` ends exactly those.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from site_files import Ports, SiteFiles

NODES = ("node1", "node2")
GPUS_PER_NODE = 8
START_LIMIT_S = 60.0
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
ACCOUNTING_DAEMONS = ("slurmdbd", "mariadbd", "mariadb-install-db")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(*, accounting: bool) -> str:
    """Why no site can be brought up here, or nothing."""
    if os.geteuid() != 0:
        return "the test cluster needs root (device files, munged)"
    if not Path("/etc/debian_version").exists():
        return "the test cluster is tried on Debian and Ubuntu only"
    wanted = DAEMONS + (ACCOUNTING_DAEMONS if accounting else ())
    absent = [name for name in wanted if shutil.which(name, path=SYSTEM_PATH) is None]
    if absent:
        packages = "slurm-wlm munge" + (" slurmdbd mariadb-server" if accounting else "")
        return f"{', '.join(absent)} not installed; apt-get install {packages}"
    return ""


class SlurmSite:
    """The cluster and its daemons."""

    def __init__(self, root: Path, *, accounting: bool) -> None:
        self.root = root
        self.accounting = accounting
        self.files = SiteFiles(root, Ports.free(), NODES, GPUS_PER_NODE, accounting=accounting)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {
            "PATH": os.environ["PATH"] + ":" + SYSTEM_PATH,
            "SLURM_CONF": str(self.files.slurm_conf),
        }

    # ---- up and down ----

    def start(self) -> None:
        self.root.chmod(0o755)
        self.files.write()
        for index in range(GPUS_PER_NODE):
            os.mknod(self.files.gpu(index), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        self._start_munged()
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_until(lambda: self._num_idle() == len(NODES), "both nodes to be idle")

    def _start_munged(self) -> None:
        files = self.files
        files.munge_key.write_bytes(os.urandom(128))
        files.munge_key.chmod(0o600)
        words = ["--foreground", "--force", f"--key-file={files.munge_key}"]
        words += [f"--socket={files.munge_socket}", f"--log-file={files.log('munged')}"]
        words += [f"--pid-file={files.root}/munged.pid", f"--seed-file={files.root}/munged.seed"]
        self._spawn("munged", ["munged", *words, "--num-threads=4"])
        self.wait_until(files.munge_socket.exists, "munged's socket")

    def _start_accounting(self) -> None:
        files = self.files
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={files.database}",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, capture_output=True, env=self.env,
        )  # fmt: skip
        self._spawn(
            "mariadbd",
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={files.database}",
             f"--socket={files.database_socket}", f"--port={files.ports.database}",
             "--bind-address=127.0.0.1", f"--pid-file={files.root}/mariadbd.pid",
             "--innodb-buffer-pool-size=64M"],
        )  # fmt: skip
        self.wait_until(lambda: _listens(files.ports.database), "the database")
        sql = "CREATE USER 'slurm'@'%' IDENTIFIED BY 'slurm'; GRANT ALL ON *.* TO 'slurm'@'%';"
        words = ["mariadb", "--no-defaults", f"--socket={files.database_socket}", "-e", sql]
        subprocess.run(words, check=True, env=self.env)
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        self.wait_until(lambda: _listens(files.ports.dbd), "slurmdbd")
        self.wait_until(
            lambda: self.call("sacctmgr", "-i", "add", "cluster", "golftest").returncode == 0,
            "the cluster to be registered",
        )

    def start_controller(self, *, forget: bool = False) -> None:
        """`forget`: as after the loss of its state, without a single job."""
        self._spawn("slurmctld", ["slurmctld", "-D", *(["-c"] if forget else [])])
        self.wait_until(self.controller_answers, "slurmctld to answer")

    def stop_controller(self) -> None:
        """As for maintenance: it saves its state, which a kill may lose with its youngest jobs."""
        process = self._daemons.pop("slurmctld")
        process.terminate()
        process.wait()

    def controller_answers(self) -> bool:
        return self.call("scontrol", "ping").returncode == 0

    def start_node(self, node: str) -> None:
        self._spawn(node, ["slurmd", "-D", "-N", node])

    def kill_node(self, node: str) -> None:
        """Its slurmd and every process of its jobs, at once, as when the power goes.

        The daemons of the steps go before the processes that they watch: one that outlived its
        process would still tell the controller that the job has failed.
        """
        self._kill(node)
        mark = f"SLURMD_NODENAME={node}".encode()
        processes, daemons = [], set()
        for pid in self._own_processes():
            with contextlib.suppress(OSError):  # it has just ended
                if mark in _environ(pid):
                    processes.append(pid)
                    if _command(_parent(pid)).startswith(b"slurmstepd"):
                        daemons.add(_parent(pid))
        for pid in (*daemons, *processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for name in ("node1", "node2", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._kill(name)
        for pid in self._own_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _spawn(self, name: str, words: Sequence[str]) -> None:
        with self.files.log(name).open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                words, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=self.root,
            )  # fmt: skip

    def _kill(self, name: str) -> None:
        process = self._daemons.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def _own_processes(self) -> Iterator[int]:
        mark = f"SLURM_CONF={self.files.slurm_conf}".encode()
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in _environ(int(path.name)):
                        yield int(path.name)

    # ---- use ----

    def call(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a Slurm command against this site."""
        return subprocess.run(
            words, env={**os.environ, **self.env}, capture_output=True, text=True, check=check,
            timeout=60,
        )  # fmt: skip

    def clear(self) -> None:
        """Cancel what is left and bring nodes back, so that tests do not meet."""
        if "slurmctld" not in self._daemons:
            self.start_controller()
        self.call("scancel", "--full", "--user=root")
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)
        self.wait_until(lambda: not self.call("squeue", "-h").stdout.strip(), "an empty queue")
        for node in NODES:
            self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.wait_until(lambda: self._num_idle() == len(NODES), "both nodes to be idle")

    def node_of(self, job_id: str) -> str:
        return self.call("squeue", "-h", "-j", job_id, "-o", "%N", check=True).stdout.strip()

    def _num_idle(self) -> int:
        return self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%t").stdout.split().count("idle")

    def wait_until(
        self, condition: Callable[[], bool], what: str, limit_s: float = START_LIMIT_S
    ) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self._tails()}"
            time.sleep(0.1)

    def _tails(self) -> str:
        logs = sorted(self.root.glob("slurm*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-600:]}" for log in logs)


def _environ(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _parent(pid: int) -> int:
    """The fourth field of `stat`; the second, the name in parentheses, may hold blanks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
