"""The doctor's job: submit it and collect its facts; `job_checks` evaluates them."""

from __future__ import annotations

import hmac
import json
import math
import secrets
import selectors
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskhpo.cluster import jobs
from daskhpo.cluster.doctor import probe
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.queue import GONE, JobState, parse_job, reason_of
from daskhpo.cluster.shell import CommandFailed, call

JOB_SECONDS = 300.0  # the time limit of the job
PROBE_POLL_SECONDS = 0.25
ASK_SLURM_SECONDS = 1.0  # between two queries: the controller has other clients
HEARD_SECONDS = 3.0  # largest delay before a message is read: a query of Slurm may come first
LATE_SECONDS = 10.0  # the job's files may appear so late on a network file system
MODULES = ("daskhpo", "dask", "distributed", "cloudpickle", "msgpack", "tornado", "numpy", "zarr")
_MOST_BYTES = 1_000_000  # of one message: any program that can reach this port may send one

Facts = dict[str, dict[str, Any]]


@dataclass
class ProbeResult:
    """State of the job, and its facts.

    Attributes
    ----------
    job : job id.
    state : state in the queue, when last checked.
    waited : seconds that it was pending; if it still is, it was cancelled then.
    facts : facts by section.
    heard : channel by which they arrived: ``"connection"``, ``"file"``, or empty: none arrived.
    skew, skew_error : seconds by which its clock is ahead of this machine's, and the error of
        that; infinite: not known.
    called : error of a connection to each address where it listens; empty: it succeeded.
    wrote : seconds until its file in the shared directory was seen here; None: not seen.
    output : what its script printed, if it is seen here.
    """

    job: str
    state: JobState = GONE
    waited: float = 0.0
    facts: Facts = field(default_factory=dict)
    heard: str = ""
    skew: float = 0.0
    skew_error: float = math.inf
    called: dict[str, str] = field(default_factory=dict)
    wrote: float | None = None
    output: str = ""

    def set_clock(self, skew: float, error: float) -> None:
        """Record by how much its clock is ahead; the smallest error counts."""
        if error < self.skew_error:
            self.skew, self.skew_error = skew, error


def run_probe(
    request: JobRequest,
    shared: Path,
    addresses: Sequence[tuple[str, str]],
    interface: str | None,
    wait: float,
    log: Callable[[str], None],
) -> ProbeResult:
    """Submit the job, wait for it, and collect its facts.

    In the end the job is cancelled, and its folder is deleted.

    Parameters
    ----------
    shared : a directory that can be written here.
    addresses : names and addresses of this machine's interfaces, the preferred one first.
    interface : network interface of the workers; None: that of their route to this machine.
    wait : seconds that the job may be pending.
    log : called with a line of text when the state of the job changes.

    Raises
    ------
    CommandMissing, CommandFailed : Slurm rejects the job, or does not answer.
    """
    token = secrets.token_hex(16)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(shared, token))
        server = stack.enter_context(ProbeServer(token, folder))
        ask = {
            "token": token,
            "addresses": [list(pair) for pair in addresses],
            "port": server.port,
            "interface": interface,
            "folder": str(folder),
            "facts": str(folder / "facts"),
            "modules": list(MODULES),
            "gpu": request.n_gpus > 0,
        }
        job = jobs.submit_script(script(request, folder, ask))
        stack.callback(_cancel, job)
        return _follow(ProbeResult(job), server, wait, log)


def script(request: JobRequest, folder: Path, ask: dict[str, Any]) -> str:
    """Return the job's script. It needs no files, since the job may see none of them."""
    quoted = shlex.quote(str(folder))
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {option}" for option in request.options(JOB_SECONDS)),
            "#SBATCH --job-name=daskhpo-doctor",
            "#SBATCH --output=/dev/null",
            f"[ -d {quoted} ] && exec > {quoted}/output 2>&1",
            *request.job_script_prologue,
            f"{request.python} - <<'DASKHPO_PROBE'",
            program(ask),
            "DASKHPO_PROBE\n",
        ]
    )


def program(ask: dict[str, Any]) -> str:
    """Return the source of the probe, with these arguments."""
    return f"{Path(probe.__file__).read_text()}\n\nmain({ask!r})"


def probe_locally(*, gpu: bool) -> Facts:
    """Run the probe in a process on this machine, and return its facts."""
    ask = {"token": "", "addresses": [], "port": 0, "interface": None, "folder": None}
    ask |= {"modules": list(MODULES), "gpu": gpu, "facts": "/dev/stdout"}
    done = subprocess.run(
        [sys.executable, "-"],
        input=program(ask),
        capture_output=True,
        text=True,
        timeout=probe.IMPORT_SECONDS + probe.GPU_SECONDS + 30,
        check=False,
    )
    facts: Facts = {}
    for line in done.stdout.splitlines():
        _take(line, facts)
    return facts


class ProbeServer:
    """Receiver of the job's facts: by a port on all interfaces, and by a shared file.

    It accepts only senders that know the token, and treats what they send as data.
    """

    def __init__(self, token: str, folder: Path) -> None:
        self._token, self._folder = token, folder
        self._server = socket.create_server(("", 0), backlog=16)
        self._server.setblocking(False)
        self.port: int = self._server.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._read: dict[socket.socket, bytes] = {}
        self._known: set[socket.socket] = set()

    def __enter__(self) -> ProbeServer:
        return self

    def __exit__(self, *error: object) -> None:
        for comm in [self._server, *self._read]:
            comm.close()
        self._selector.close()

    def listen(self, visit: ProbeResult, seconds: float) -> None:
        """Receive facts for so many seconds; return as soon as something has arrived."""
        for key, _ in self._selector.select(seconds):
            comm = key.fileobj
            if comm is self._server:
                with suppress(OSError):
                    new, _ = self._server.accept()
                    new.setblocking(False)
                    self._read[new] = b""
                    self._selector.register(new, selectors.EVENT_READ)
            elif isinstance(comm, socket.socket):
                self._hear(comm, visit)
        self._read_file(visit)

    def _hear(self, comm: socket.socket, visit: ProbeResult) -> None:
        try:
            message = comm.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        data = self._read[comm] + message
        *lines, self._read[comm] = data.split(b"\n")
        for line in lines:
            if comm not in self._known:
                if not self._is_token(line):
                    message = b""
                    break
                self._known.add(comm)
                continue
            visit.heard = "connection"
            if (at := _take(line, visit.facts)) is not None:
                visit.set_clock(at - time.time(), HEARD_SECONDS)
        if not message or len(self._read[comm]) > _MOST_BYTES:
            self._selector.unregister(comm)
            comm.close()
            del self._read[comm]

    def _is_token(self, line: bytes) -> bool:
        try:
            token = json.loads(line)["token"]
            return hmac.compare_digest(token.encode(), self._token.encode())
        except (ValueError, TypeError, KeyError, AttributeError):
            return False

    def _read_file(self, visit: ProbeResult) -> None:
        with suppress(OSError):  # opened again each time, which makes NFS look for changes
            lines = (self._folder / "facts").read_text().split("\n")[:-1]
            for line in lines:
                if _take(line, visit.facts) is not None:
                    visit.heard = visit.heard or "file"
        with suppress(OSError):
            visit.output = (self._folder / "output").read_text(errors="replace")[-5000:]

    def call(self, visit: ProbeResult) -> None:
        """Connect to the job where it listens, as Dask's scheduler would."""
        hello = visit.facts.get("hello", {})
        for host in hello.get("addresses", []):
            if host in visit.called:
                continue
            began = time.time()
            try:
                with socket.create_connection((host, hello["port"]), probe.CONNECT_SECONDS) as comm:
                    comm.settimeout(probe.CONNECT_SECONDS)
                    comm.sendall(f"{self._token}\n".encode())
                    answer = json.loads(comm.makefile("r").readline())
                ended = time.time()
                visit.set_clock(answer["at"] - (began + ended) / 2, (ended - began) / 2)
                visit.called[host] = ""
            except (OSError, ValueError, KeyError) as error:
                visit.called[host] = str(error) or type(error).__name__

    def look_for_file(self, visit: ProbeResult, since: float) -> None:
        """Record when the job's file in the shared directory is first seen."""
        if visit.wrote is None and "shared" in visit.facts:
            with suppress(OSError):
                if (self._folder / "there").read_text() == self._token:
                    visit.wrote = max(0.0, time.monotonic() - since)


def _follow(
    visit: ProbeResult, server: ProbeServer, wait: float, log: Callable[[str], None]
) -> ProbeResult:
    began = time.monotonic()
    asked_at = shared_at = ended_at = 0.0
    ran_at: float | None = None
    logged = ""
    while True:
        server.listen(visit, PROBE_POLL_SECONDS)
        now = time.monotonic()
        server.call(visit)
        if "shared" in visit.facts:
            shared_at = shared_at or now
            server.look_for_file(visit, shared_at)
            expects_file = "write_error" not in visit.facts["shared"] and visit.wrote is None
        else:
            expects_file = False
        late = now - shared_at > LATE_SECONDS
        if "end" in visit.facts and (not expects_file or late):
            visit.state = _state(visit.job)
            return visit
        if now - asked_at < ASK_SLURM_SECONDS:
            continue
        asked_at = now
        visit.state = state = _state(visit.job)
        if state.waits:
            visit.waited = now - began
            message = f"job {visit.job} is pending ({state.reason or 'no reason yet'})"
            if visit.waited >= wait or (visit.waited > 5 and reason_of(state.reason).is_hopeless):
                return visit
        else:
            message = f"job {visit.job} runs on {state.nodes or 'a node'}"
            ran_at = ran_at or now
        if message != logged:
            log(logged := message)
        if state.is_over:
            ended_at = ended_at or now
            if now - ended_at > LATE_SECONDS:
                return visit
        elif ran_at is not None and now - ran_at > JOB_SECONDS + 60:
            return visit


def _state(job: str) -> JobState:
    try:
        return parse_job(call(["scontrol", "--oneliner", "show", "job", job]))
    except CommandFailed as error:
        if "Invalid job id" in error.output:
            return GONE
        return JobState("PENDING", "Slurm does not answer")


def _cancel(job: str) -> None:
    with suppress(CommandFailed):  # it has ended
        jobs.cancel(job)


@contextmanager
def _folder(shared: Path, token: str) -> Iterator[Path]:
    """Create a folder in the shared directory, with a file for the job to read."""
    folder = shared.absolute() / f".daskhpo-doctor-{token[:8]}"
    folder.mkdir(mode=0o700)
    try:
        (folder / "here").write_text(token)
        (folder / "facts").touch()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take(line: str | bytes, facts: Facts) -> float | None:
    """Add one section to the facts; return its time, or None if it is not a section."""
    try:
        found = json.loads(line)
        section, at = found.pop("section"), float(found.pop("at"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    facts.setdefault(section, found)
    return at
