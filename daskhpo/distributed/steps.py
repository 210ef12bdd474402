"""Ranks on several nodes of a Slurm job: the tasks of one step, started by srun.

They connect to their trial's process, and both prove that they know a key which ``srun`` hands on.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping

from daskhpo.core.errors import RankFailed
from daskhpo.distributed.messages import Link
from daskhpo.distributed.processes import LAST_LINES, OUTPUT_SECONDS

PORT, KEY = "DASKHPO_RANKS_PORT", "DASKHPO_RANKS_KEY"  # variables of a step's tasks
LAUNCH_ADDRESS = "SLURM_LAUNCH_NODE_IPADDR"  # of the machine on which srun runs
RANKS_CONNECT_SECONDS = 300.0  # for all ranks to connect: imports from a busy file system take long
GREETING_SECONDS = 10.0  # for a proof of the key
STEP_END_SECONDS = 10.0  # for srun to end its step
NONCE = 32  # bytes
_SIGNALS = {  # as srun words them
    "Killed": signal.SIGKILL,
    "Terminated": signal.SIGTERM,
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
}
_LABELLED = re.compile(r"\s*(\d+): ?(.*)")
_TASK_ENDED = re.compile(r"srun: error: \S+: tasks? ([\d,-]+): (.+)")


class RankStep:
    """A step of this job, one task for each rank.

    Parameters
    ----------
    trial : its number, for what ranks print.
    environment : of all ranks.
    n, nodes : number of ranks, and of nodes; each node has as many.
    gpus : GPUs of the trial on each node.
    cpus : of each rank.

    Raises
    ------
    RankFailed : the ranks did not start.
    """

    def __init__(
        self,
        trial: int,
        environment: Mapping[str, str],
        n: int,
        nodes: int,
        gpus: int,
        cpus: int,
    ) -> None:
        if shutil.which("srun") is None:
            raise _broken("srun was not found: ranks on several nodes need it where workers run")
        self._trial, self._key = trial, secrets.token_bytes(NONCE)
        self._messages: deque[str] = deque(maxlen=LAST_LINES)  # of srun itself
        self._last: list[deque[str]] = [deque(maxlen=LAST_LINES) for _ in range(n)]
        self._statuses: dict[int, int] = {}
        self._has_said = threading.Condition()
        with socket.create_server(("", 0), backlog=n) as listener:
            own = {PORT: str(listener.getsockname()[1]), KEY: self._key.hex()}
            self._srun = subprocess.Popen(
                srun_command(n, nodes, gpus, cpus),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**environment, **own},
                start_new_session=True,
            )
            self._reader = threading.Thread(
                target=self._read, name=f"trial-{trial}-output", daemon=True
            )
            self._reader.start()
            try:
                links = self._connected(listener, n)
            except BaseException:
                self.close()
                raise
        self.ranks = [StepRank(self, rank, links[rank]) for rank in range(n)]

    def has_ended(self) -> bool:
        """Return True if no rank is left."""
        return self._srun.poll() is not None

    def status_of(self, rank: int) -> int | None:
        """Return how a rank ended, as `subprocess` does; None: srun does not say."""
        with self._has_said:
            self._has_said.wait_for(lambda: rank in self._statuses, OUTPUT_SECONDS)
            return self._statuses.get(rank)

    def last_lines(self, rank: int) -> str:
        """Return the last lines of a rank that has ended."""
        return "\n".join(self._last[rank])

    def close(self) -> None:
        """Kill what is left of the step."""
        with contextlib.suppress(ProcessLookupError):
            self._srun.terminate()  # srun then kills its tasks
        try:
            self._srun.wait(STEP_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._srun.kill()
            self._srun.wait()
        self._reader.join(OUTPUT_SECONDS)

    def _connected(self, listener: socket.socket, n: int) -> dict[int, Link]:
        listener.settimeout(0.1)
        links: dict[int, Link] = {}
        until = time.monotonic() + RANKS_CONNECT_SECONDS
        while len(links) < n:
            if self.has_ended() or time.monotonic() > until:
                for link in links.values():
                    link.close()
                raise self._not_started(n - len(links), n)
            try:
                end, _ = listener.accept()
            except TimeoutError:
                continue
            rank = greet_rank(end, self._key)
            if rank is None or rank in links:
                end.close()
            else:
                links[rank] = Link(end)
        return links

    def _not_started(self, missing: int, n: int) -> RankFailed:
        self._reader.join(OUTPUT_SECONDS)
        lines = [*self._messages, *(line for rank in self._last for line in rank)]
        what = f"{missing} of {n} ranks did not start"
        if not self.has_ended():
            what += f" within {RANKS_CONNECT_SECONDS:g} s"
        story = "\n".join([what, "the last output:", *lines]) if lines else what
        return RankFailed(f"{what}: {lines[-1]}" if lines else what, 0, story)

    def _read(self) -> None:
        assert self._srun.stdout is not None
        for line in self._srun.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            found = _LABELLED.fullmatch(text)
            if found and int(found[1]) < len(self._last):
                self._last[int(found[1])].append(found[2])
                who = f"rank {found[1]}"
                text = found[2]
            else:
                self._messages.append(text)
                self._note(text)
                who = "srun"
            with contextlib.suppress(OSError, ValueError):  # the stream is closed
                sys.stdout.write(f"[trial {self._trial} {who}] {text}\n")
                sys.stdout.flush()

    def _note(self, text: str) -> None:
        found = ends_of_tasks(text)
        if found:
            with self._has_said:
                self._statuses = {**found, **self._statuses}
                self._has_said.notify_all()


class StepRank:
    """A rank that is a task of a step; as `RankProcess`."""

    def __init__(self, step: RankStep, rank: int, link: Link) -> None:
        self._step, self._rank, self.link = step, rank, link
        self._is_lost = False

    def has_ended(self) -> bool:
        """Return True if it has ended, or its connection has."""
        return self._is_lost or self._step.has_ended()

    def status(self) -> int | None:
        """Return how it ended; None: not known."""
        return self._step.status_of(self._rank)

    def kill(self) -> None:
        """Close its connection: it then ends itself, with its children."""
        self._is_lost = True
        self.link.shut_down()

    def close(self) -> None:
        """Kill it, and forget it."""
        self.kill()
        self.link.close()


def srun_command(n: int, nodes: int, gpus: int, cpus: int) -> list[str]:
    """Return the command line of a step of ranks."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from daskhpo.distributed.rank import main_of_step\n"
        "main_of_step()"
    )
    return [
        "srun",
        *(f"--nodes={nodes}", f"--ntasks={n}", f"--ntasks-per-node={n // nodes}"),
        *("--distribution=block", f"--cpus-per-task={cpus}", "--mem=0", "--overlap"),
        *([f"--gres=gpu:{gpus}"] if gpus else []),
        # A rank that fails ends the others through their trial's process, which knows why.
        *("--kill-on-bad-exit=0", "--wait=0", "--export=ALL", "--mpi=none"),
        *("--label", "--unbuffered", "--input=none"),
        *(sys.executable, "-u", "-c", program),
    ]


def ends_of_tasks(message: str) -> dict[int, int]:
    """Return the statuses of the tasks whose end a message of srun tells.

    >>> ends_of_tasks("srun: error: n2: tasks 1-2: Exited with exit code 7")
    {1: 7, 2: 7}
    >>> ends_of_tasks("srun: error: n1: task 0: Killed")
    {0: -9}
    """
    found = _TASK_ENDED.match(message)
    if found is None:
        return {}
    how = found[2].removesuffix(" (core dumped)")
    code = re.match(r"Exited with exit code (\d+)", how)
    status = int(code[1]) if code else -_SIGNALS[how] if how in _SIGNALS else None
    if status is None:
        return {}
    tasks: dict[int, int] = {}
    for part in found[1].split(","):
        first, _, last = part.partition("-")
        tasks |= dict.fromkeys(range(int(first), int(last or first) + 1), status)
    return tasks


# -- proof of the key: each side answers the other's random bytes ----------------------------------


def greet_rank(end: socket.socket, key: bytes) -> int | None:
    """Return the number of a rank that has connected; None: it does not know the key."""
    end.settimeout(GREETING_SECONDS)
    ours = secrets.token_bytes(NONCE)
    try:
        end.sendall(ours)
        said = _exactly(end, 4 + NONCE + NONCE)
        rank, theirs, proof = said[:4], said[4 : 4 + NONCE], said[4 + NONCE :]
        if not hmac.compare_digest(proof, _proof(key, b"rank", rank, ours, theirs)):
            return None
        end.sendall(_proof(key, b"trial", rank, ours, theirs))
    except OSError:
        return None
    end.settimeout(None)
    return int.from_bytes(rank, "big")


def greet_trial(end: socket.socket, key: bytes, number: int) -> None:
    """Tell a trial's process which rank this is.

    Raises
    ------
    OSError : it does not know the key, or is gone.
    """
    end.settimeout(RANKS_CONNECT_SECONDS)
    rank, ours = number.to_bytes(4, "big"), secrets.token_bytes(NONCE)
    theirs = _exactly(end, NONCE)
    end.sendall(rank + ours + _proof(key, b"rank", rank, theirs, ours))
    if not hmac.compare_digest(_exactly(end, NONCE), _proof(key, b"trial", rank, theirs, ours)):
        raise ConnectionError("what answers is not this rank's trial")
    end.settimeout(None)


def _proof(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"|".join(parts), "sha256")


def _exactly(end: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        if not (more := end.recv(n - len(data))):
            raise ConnectionError("the connection was closed")
        data += more
    return data


# -- in a rank -------------------------------------------------------------------------------------


def connect_to_trial() -> socket.socket:
    """Return the connection of this rank to its trial; set torchrun's variables."""
    environ = os.environ
    key, port = bytes.fromhex(environ.pop(KEY)), int(environ.pop(PORT))
    environ |= torchrun_variables(environ)
    end = socket.create_connection((environ[LAUNCH_ADDRESS], port), timeout=RANKS_CONNECT_SECONDS)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    greet_trial(end, key, int(environ["RANK"]))
    return end


def torchrun_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return torchrun's variables of a task of a step, by Slurm's."""
    n, nodes = int(environ["SLURM_NTASKS"]), int(environ["SLURM_STEP_NUM_NODES"])
    return {
        "RANK": environ["SLURM_PROCID"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "GROUP_RANK": environ["SLURM_NODEID"],
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n // nodes),
        "GROUP_WORLD_SIZE": str(nodes),
        "MASTER_ADDR": environ[LAUNCH_ADDRESS],  # of the first node, on which rank 0 is
    }


def _broken(message: str) -> RankFailed:
    return RankFailed(message, 0, message)
