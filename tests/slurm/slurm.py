"""A real Slurm on this machine: its controller, and several nodes with pretended GPUs.

Needs root and Debian's packages ``slurm-wlm`` and ``munge``. Nothing outside its own folder is
touched: it has a credential daemon, ports and a configuration of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.slurm import accounting

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo", "scontrol", "munged")
GPUS_PER_NODE = 2
CPUS_PER_NODE = 4
MEGABYTES_PER_NODE = 8000
KILL_WAIT = 8  # seconds between SIGTERM and SIGKILL


def _whole(number: str) -> str:
    """The job, or the array of which it is a part: what waits of one is ``76_[2-3%1]``."""
    return number.partition("_")[0]


def missing() -> str | None:
    """Why a Slurm cannot be started here; None if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found; on Debian: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a Slurm of the tests' own is started as root only"
    return None


class Slurm:
    """A running Slurm; ``SLURM_CONF`` must be in the environment of who uses it.

    Attributes
    ----------
    conf : its configuration file.
    nodes : names of the nodes, each with two pretended GPUs and four CPUs.

    Parameters
    ----------
    root : its folder.
    extra : more lines of its configuration.
    accounts : keep accounts, and refuse jobs that are charged to none. There are the accounts
        ``lab`` (the default) and ``guests``, both root's, ``others``, which is nobody's, and the
        quality of service ``short``, of ten minutes at most.
    """

    def __init__(
        self, root: Path, n_nodes: int = 3, extra: str = "", *, accounts: bool = False
    ) -> None:
        self.root, self.conf = root, root / "slurm.conf"
        self.nodes = tuple(f"n{number}" for number in range(1, n_nodes + 1))
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._extra, self._accounts = extra, accounts

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs so that Slurm's commands talk to this one."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._configure()
        (self.root / "munge").mkdir(mode=0o755, exist_ok=True)
        self._daemon(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--socket={self._socket}",
            f"--key-file={self.root / 'munge.key'}",
            f"--pid-file={self.root / 'munge' / 'pid'}",
            f"--seed-file={self.root / 'munge' / 'seed'}",
            f"--log-file={self.root / 'munge' / 'log'}",
        )
        until(self._socket.exists, "munged answers")
        if self._accounts:
            self._open_accounts()
        self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        for node in self.nodes:
            self.start_node(node)
        self.wait_for_nodes()

    def start_node(self, node: str, *before: str) -> None:
        """Start a node's daemon, perhaps by a program that changes what it and its jobs see."""
        # Its steps read the file again after they have changed folders: the path is absolute.
        self._daemon(node, *before, "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon, as a crash of the machine would; its jobs' processes live on."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()

    def wait_for_nodes(self) -> None:
        """Wait until every node can run jobs."""
        until(lambda: set(self.states().values()) == {"idle"}, "all nodes are idle")

    def states(self) -> dict[str, str]:
        """Each node's state, in Slurm's words."""
        lines = self.command("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def jobs(self) -> dict[str, str]:
        """Each job that is not over: number to state."""
        lines = self.command("squeue", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def cancel_all(self) -> None:
        """Cancel every job, and wait until the nodes are free."""
        for number in self.jobs():
            self.command("scancel", _whole(number))
        until(lambda: not self.jobs(), "no job is left")

    def command(self, *argv: str) -> str:
        """What one of Slurm's commands prints."""
        environment = os.environ | self.environment
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{argv}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self) -> None:
        """End all jobs and daemons."""
        if "slurmctld" in self._daemons:
            for number in self.jobs():
                self.command("scancel", "--signal=KILL", "--full", _whole(number))
            self.cancel_all()
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def log(self, name: str) -> str:
        """What a daemon has said: ``slurmctld`` or a node's."""
        path = self.root / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _socket(self) -> Path:
        return self.root / "munge" / "socket"

    def _daemon(self, name: str, *argv: str) -> None:
        log = (self.root / f"{name}.out").open("ab")
        with log:
            self._daemons[name] = subprocess.Popen(
                # It shall not outlive a test run that is killed.
                ["setpriv", "--pdeathsig", "TERM", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def _open_accounts(self) -> None:
        accounting.make_database(self.root)
        database_port = free_ports(1)[0]
        accounting.configure(self.root, self._socket, database_port, self._accounts_port)
        self._daemon("mariadbd", *accounting.database(self.root, database_port))
        until(lambda: _listens(database_port), "the database answers")
        self._daemon("slurmdbd", "slurmdbd", "-D")
        until(lambda: _listens(self._accounts_port), "slurmdbd answers")
        for words in ACCOUNTS:
            self.command("sacctmgr", "--immediate", "--quiet", *words.split())

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        ports = free_ports(2 + len(self.nodes))
        self._accounts_port = ports[-1]
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        gres, nodes = [], []
        for node, port in zip(self.nodes, ports[1:-1], strict=True):
            for number in range(GPUS_PER_NODE):
                device = self.root / f"{node}gpu{number}"
                if not device.exists():  # a count without files is refused
                    os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
            files = f"{self.root}/{node}gpu[0-{GPUS_PER_NODE - 1}]"
            gres.append(f"NodeName={node} Name=gpu File={files}")
            nodes.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
                f"CPUs={CPUS_PER_NODE} RealMemory={MEGABYTES_PER_NODE} Gres=gpu:{GPUS_PER_NODE} "
                "State=UNKNOWN"
            )
        (self.root / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.root / "cgroup.conf").write_text("CgroupAutomount=no\n")
        self.conf.write_text(
            SLURM_CONF.format(
                host=host,
                root=self.root,
                socket=self._socket,
                port=ports[0],
                kill_wait=KILL_WAIT,
                nodes="\n".join(nodes),
                accounting=(
                    WITH_ACCOUNTS.format(port=self._accounts_port, socket=self._socket)
                    if self._accounts
                    else "AccountingStorageType=accounting_storage/none"
                ),
                extra=self._extra,
            )
        )


SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2
{accounting}
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
KillWait={kill_wait}
InactiveLimit=0
MinJobAge=300
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=debug Nodes=ALL MaxTime=00:05:00 State=UP
{extra}
"""

WITH_ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={socket}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos"""

ACCOUNTS = (
    "add cluster tests",
    "add qos short set MaxWall=00:10:00",
    "add account lab Cluster=tests",
    "add account guests Cluster=tests",
    "add account others Cluster=tests",
    "add user root Account=lab,guests DefaultAccount=lab QOS=normal,short DefaultQOS=normal",
)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def free_ports(n: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for a condition and return its value; an error of a command counts as "not yet"."""
    end = time.monotonic() + seconds
    problem: object = "it was not true"
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except RuntimeError as error:
            problem = error
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s in vain until {what}: {problem}")
