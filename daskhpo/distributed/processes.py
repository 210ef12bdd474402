"""Processes of a trial's ranks: their environment, start, output and end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from daskhpo.cluster.gpus import VISIBLE, Gpus, Maker, run_tool, visible_gpus
from daskhpo.distributed.messages import Link

MASTER_ADDRESS = "127.0.0.1"
LAST_LINES = 100  # of a rank that died, in its error
LONGEST_LINE = 65536  # bytes; a longer one is printed in pieces
OUTPUT_SECONDS = 1.0  # to wait for the last output of a rank that has ended


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Hold a free port for the ranks' rendezvous, ``MASTER_PORT``.

    Rank 0 listens on it, when it likes.

    On Linux a port that is bound and not listened on is given to no other process that asks for a
    free one, or connects. Only a program that names this port, and sets ``SO_REUSEADDR``, may use
    it, which is what a rendezvous does. Elsewhere the port is free again when it is returned.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


@dataclass(frozen=True)
class RankGpus:
    """The GPUs of a trial on one node, and what each rank there sees of them.

    All ranks see all of them, in the same order, so that ``LOCAL_RANK`` is the number of a rank's
    own. Of a divided GPU (MIG) a process can use one part only: there a rank sees its own alone.

    Attributes
    ----------
    found : GPUs of the trial's process.
    names : of the trial's own, as variables name them; none: it has no GPU.
    """

    found: Gpus = field(default_factory=Gpus)
    names: tuple[str, ...] = ()

    @property
    def _are_parts(self) -> bool:
        return any(name.startswith("MIG-") for name in self.names)

    def environment(self, rank: int) -> dict[str, str]:
        """Return the variables by which a rank sees its GPUs, and no other ones."""
        if not self.names:
            return {}
        own = self.names[min(rank, len(self.names) - 1)]
        return self.found.environment([own] if self._are_parts else self.names)

    def device(self, rank: int) -> str:
        """Return torch's name of a rank's device."""
        if not self.names:
            return "cpu"
        return self.found.device(0 if self._are_parts else rank)


def rank_gpus(environ: Mapping[str, str], devices: Sequence[str]) -> RankGpus:
    """Return the GPUs of a trial's ranks.

    Parameters
    ----------
    environ : of the trial's process.
    devices : of the trial, as that process numbers them: ``("cuda:0", "cuda:1")``.
    """
    numbers = [int(number) for _, _, number in (d.partition(":") for d in devices) if number]
    is_named = any(name in environ for name in VISIBLE)
    found = visible_gpus(environ, (lambda _: None) if is_named else run_tool) if numbers else Gpus()
    if not found.source and any(device.startswith("xpu") for device in devices):
        found = replace(found, maker=Maker.INTEL)
    names = (found.names[n] if n < len(found.names) else str(n) for n in numbers)
    return RankGpus(found, tuple(names))


def rank_environment(
    environ: Mapping[str, str], rank: int, n: int, port: int, gpus: RankGpus, n_cpus: int
) -> dict[str, str]:
    """Return the environment of a rank: that of torchrun.

    The ranks share the threads that the trial may use. They see the trial's GPUs and no other ones,
    so ``LOCAL_RANK`` is the number of a rank's own.

    Parameters
    ----------
    environ : of the trial's process.
    port : of the rendezvous.
    gpus : of the trial.
    n_cpus : CPUs that the trial's process may use.
    """
    threads = {"OMP_NUM_THREADS": str(n_cpus)} | {
        name: value
        for name, value in environ.items()
        if name.endswith("_NUM_THREADS") and value.isdecimal()
    }
    return dict(environ) | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": MASTER_ADDRESS,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": f"daskhpo-{port}",  # Lightning asks for it before Slurm's variables
        **{name: str(max(1, int(value) // n)) for name, value in threads.items()},
        **gpus.environment(rank),
    }


class RankProcess:
    """The process of one rank, which leads a process group of its own.

    Its output is printed by this process, with a prefix.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            program = (
                f"import sys; sys.path[:] = {sys.path!r}\n"
                "from daskhpo.distributed.rank import main\n"
                f"main({theirs.fileno()}, {os.getpid()})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal does not reach it
            )
        self.link = Link(ours)
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout

    def status(self) -> int | None:
        """Return the status of the process, as `subprocess` does; None while it lives.

        It is not waited for: until `close`, no other process gets the number of its group.
        """
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll()
        try:
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # something else has waited for it
            return self._process.poll()
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def kill(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of the process and its children, and forget it."""
        if self._process.returncode is None:
            self.kill()
            self._process.wait()
        self.link.close()


class Output:
    """A thread that prints each line of the ranks, with its trial and rank."""

    def __init__(self, trial: int, ranks: Sequence[RankProcess]) -> None:
        self._trial, self._pipes = trial, [rank.output for rank in ranks]
        self._last: list[deque[str]] = [deque(maxlen=LAST_LINES) for _ in ranks]
        self._ended = [threading.Event() for _ in ranks]
        self._thread = threading.Thread(
            target=self._read, name=f"trial-{trial}-output", daemon=True
        )
        self._thread.start()

    def last_lines(self, rank: int) -> str:
        """Return the last lines of a rank that has ended."""
        self._ended[rank].wait(OUTPUT_SECONDS)
        return "\n".join(self._last[rank])

    def close(self) -> None:
        """Print the rest; the processes must have ended."""
        self._thread.join(OUTPUT_SECONDS)  # a child that left its group may have the pipe

    def _read(self) -> None:
        texts = [b""] * len(self._pipes)
        with selectors.DefaultSelector() as selector:
            for rank, pipe in enumerate(self._pipes):
                selector.register(pipe, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    rank = key.data
                    read = os.read(key.fd, LONGEST_LINE)
                    text = texts[rank] + read
                    whole, _, rest = text.rpartition(b"\n")
                    if not read or len(rest) > LONGEST_LINE:
                        whole, rest = text, b""
                    texts[rank] = rest
                    self._print(rank, whole)
                    if not read:
                        selector.unregister(key.fileobj)
                        self._pipes[rank].close()
                        self._ended[rank].set()

    def _print(self, rank: int, text: bytes) -> None:
        lines = text.decode(errors="replace").splitlines()
        self._last[rank].extend(lines)
        shown = "".join(f"[trial {self._trial} rank {rank}] {line}\n" for line in lines)
        with contextlib.suppress(OSError, ValueError):  # the stream is closed
            sys.stdout.write(shown)
            sys.stdout.flush()
