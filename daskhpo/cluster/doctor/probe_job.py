"""The doctor's job: submit it, and read its findings from its output."""

from __future__ import annotations

import json
import logging
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daskhpo.cluster import jobs
from daskhpo.cluster.commands import ask
from daskhpo.cluster.container import interpreter
from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.machine_checks import digest, type_of, versions
from daskhpo.cluster.doctor.probe import CONNECT_SECONDS, FIREWALL, Probe
from daskhpo.cluster.doctor.queue import GONE, JobState, check_wait, parse_job
from daskhpo.cluster.doctor.slurm_checks import Accounts, check_refusal
from daskhpo.cluster.parsers import split_job_id
from daskhpo.cluster.reasons import Outlook, explain
from daskhpo.cluster.shell import CommandError, CommandFailed

logger = logging.getLogger("daskhpo")

JOB_SECONDS = 300.0  # the time limit of the job
POLL_SECONDS = 0.5  # between two queries: the controller has other clients
LATE_SECONDS = 10.0  # the job's output may appear so late on a network file system
NOT_THERE, NOT_WRITABLE = "71:0", "72:0"  # exit codes of a job without the shared directory


def run_probe(
    request: JobRequest,
    shared: Path,
    addresses: Sequence[tuple[str, str]],
    interface: str | None,
    wait: float,
    log: Callable[[str], None],
) -> Iterator[Finding]:
    """Submit the job, wait for it, and yield its findings as they come.

    In the end the job is cancelled, and its folder is deleted.

    Parameters
    ----------
    shared : a directory that can be written here.
    addresses : names and addresses of this machine's interfaces, the preferred one first.
    interface : network interface of the workers; None: that of their route to this machine.
    wait : seconds that the job may be pending.
    log : called with a line of text when the state of the job changes.
    """
    with ExitStack() as stack:
        output = stack.enter_context(_output(shared))
        server = stack.enter_context(socket.create_server(("", 0), backlog=16))
        port = server.getsockname()[1]  # the kernel completes connections, and nothing is read
        probe = Probe(addresses, port, interface, versions()[0], digest(), request.n_gpus)
        file = output.with_name("script.sh")
        file.write_text(script(request, output, probe))
        try:
            job = jobs.submit(file)
        except CommandFailed as error:
            yield check_refusal(error.output, Accounts())
            return
        stack.callback(_cancel, job)
        state, waited = _await_start(job, wait, log)
        if state.waits:
            yield check_wait(job, state, waited)
            yield skipped("job", "nothing was checked in the job: it did not start")
            return
        yield ok("start", f"job {job} started after {waited:.0f} s")
        yield from collect(job, state, lambda: _state(job), output, interface)


def script(request: JobRequest, output: Path, probe: Probe) -> str:
    """Return the job's script."""
    folder = shlex.quote(str(output.parent))
    program = interpreter(request.python, request.container, request.n_gpus, [output.parent])
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {option}" for option in request.options(JOB_SECONDS)),
            "#SBATCH --job-name=daskhpo-doctor",
            "#SBATCH --output=/dev/null",
            f"[ -d {folder} ] || exit {NOT_THERE[:2]}",
            f"echo >> {folder}/{output.name} || exit {NOT_WRITABLE[:2]}",
            f"exec >> {folder}/{output.name} 2>&1",
            *request.job_script_prologue,
            *program.prologue,
            f"{program.command} -m daskhpo.cluster.doctor.probe <<'DASKHPO_PROBE'",
            json.dumps(asdict(probe)),
            "DASKHPO_PROBE\n",
        ]
    )


def collect(
    job: str,
    state: JobState,
    state_of: Callable[[], JobState],
    output: Path,
    interface: str | None,
) -> Iterator[Finding]:
    """Yield the findings of a job that runs, until no more can come.

    Parameters
    ----------
    state, state_of : state of the job in the queue, and how to ask for it again.
    output : the file to which it writes.
    interface : network interface of the workers; None: that of their route to this machine.
    """
    shared, said, n_read = output.parents[1], list[str](), 0
    was_heard = has_ended = False
    deadline = time.monotonic() + JOB_SECONDS + 60
    while not has_ended and time.monotonic() < deadline:
        if (now := state_of()) != GONE:
            state = now
        lines = _read(output).split("\n")[:-1]  # opened again each time, so that NFS looks again
        if lines and not n_read:
            kind = f" ({kind})" if (kind := type_of(str(shared))) else ""
            yield ok("shared directory", f"{shared}{kind} is the same on {state.nodes}")
        for line in lines[n_read:]:
            match message := _parsed(line):
                case {"check": _}:
                    yield Finding.from_json(message)
                case {"port": int()}:
                    was_heard = True
                    yield check_call(message, interface)
                case {"end": True}:
                    has_ended = True
                case _ if line.strip():
                    said.append(line.strip()[:300])
        n_read = len(lines)
        if now.is_over:  # what it wrote is here, or comes late, or was not written
            is_known = n_read or state.exit_code in (NOT_THERE, NOT_WRITABLE)
            deadline = min(deadline, time.monotonic() + (0 if is_known else LATE_SECONDS))
        time.sleep(POLL_SECONDS)
    if has_ended:
        yield ok("job", f"job {job} ran on {state.nodes}")
    elif n_read:
        yield check_end(f"job {job} on {state.nodes}", state, was_heard, said)
    else:
        yield check_directory(shared, state)


def check_call(hello: Mapping[str, Any], interface: str | None) -> Finding:
    """Connect to the job where it listens, as Dask's scheduler would."""
    check, node, host = "here to worker", hello["host"], hello["address"]
    if host is None and interface is not None:
        message = f"{node} has no interface {interface}, but {hello['interfaces']}"
        return problem(check, message, "choose an --interface that both machines have")
    if host is None:
        return skipped(check, "the job found no address of its own")
    try:
        socket.create_connection((host, hello["port"]), CONNECT_SECONDS).close()
    except OSError as error:
        return problem(check, f"this machine cannot connect to {host} ({node}): {error}", FIREWALL)
    return ok(check, f"this machine can connect to {host}")


def check_directory(shared: Path, state: JobState) -> Finding:
    """Report why the output of a job was not seen here."""
    check, node = "shared directory", state.nodes
    if state.exit_code == NOT_WRITABLE:
        hint = "check its permissions, and whether it is mounted read-only there"
        return problem(check, f"{node} cannot write to {shared}", hint)
    message = f"what {node} wrote to {shared} was not seen here"
    if state.exit_code == NOT_THERE:
        message = f"{shared} does not exist on {node}, or is another directory there"
    return problem(check, message, "choose a --shared directory that all machines share")


def check_end(job: str, state: JobState, was_heard: bool, said: Sequence[str]) -> Finding:
    """Report how a job ended before it had made all checks.

    Parameters
    ----------
    said : lines of its output that are no findings.
    """
    how = f"ended ({state.state}, exit code {state.exit_code})"
    how = how if state.is_over else f"was {state.state}, and was cancelled"
    last = f"; the last line of its output: {said[-1]}" if said else ""
    if was_heard:
        hint = "see which of the checks above have no result"
        return problem("job", f"{job} {how} before it had finished{last}", hint)
    check = "python" if "No module named" in last else "job"
    hint = "set --python to the interpreter of your environment, or activate it with --prologue"
    return problem(check, f"{job} {how}, and Python did not start{last}", hint)


def _parsed(line: str) -> Any:
    with suppress(ValueError):
        return json.loads(line)


def _await_start(job: str, wait: float, log: Callable[[str], None]) -> tuple[JobState, float]:
    """Wait until a job starts, or too long; return its state and the seconds."""
    began, logged = time.monotonic(), ""
    while True:
        state = _state(job)
        waited = time.monotonic() - began
        message = f"job {job} runs on {state.nodes or 'a node'}"
        if state.waits:
            why = "no reason yet" if state.reason in ("", "None") else state.reason
            message = f"job {job} is pending ({why})"
        if message != logged:
            log(logged := message)
        is_hopeless = waited > 5 and explain(state.reason)[2] is Outlook.HOPELESS
        if not state.waits or waited >= wait or is_hopeless:
            return state, waited
        time.sleep(POLL_SECONDS)


def _state(job: str) -> JobState:
    number, _ = split_job_id(job)
    try:
        return parse_job(ask(["scontrol", "--oneliner", "show", "job", number]), number)
    except CommandFailed as error:
        if "Invalid job id" in error.output:
            return GONE
        return JobState("PENDING", "Slurm does not answer")


def _cancel(job: str) -> None:
    try:
        jobs.cancel([job])
    except CommandError as error:
        logger.warning("the doctor's job could not be cancelled: %s", error)


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


@contextmanager
def _output(shared: Path) -> Iterator[Path]:
    """Create a file for the job's output, in a folder with a name of its own."""
    folder = shared.absolute() / f".daskhpo-doctor-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        (folder / "output").touch()  # on NFS a new file would be seen late
        yield folder / "output"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
