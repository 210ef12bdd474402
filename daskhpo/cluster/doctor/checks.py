"""All checks of the doctor: their order, and which depends on which."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from daskhpo.cluster import network
from daskhpo.cluster.commands import ask, sbatch, user_name
from daskhpo.cluster.doctor import slurm_checks
from daskhpo.cluster.doctor.finding import CheckLocation, Finding, Verdict, ok, problem, skipped
from daskhpo.cluster.doctor.gpu_checks import check_gpus
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.machine_checks import (
    check_limits,
    check_python,
    check_scratch,
    digest,
    type_of,
    versions,
)
from daskhpo.cluster.doctor.probe import CHECK_SECONDS, within
from daskhpo.cluster.doctor.probe_job import run_probe
from daskhpo.cluster.doctor.quota import Quota, check_room, parse_quota
from daskhpo.cluster.gpus import visible_gpus
from daskhpo.cluster.parsers import parse_records
from daskhpo.cluster.shell import CommandError, CommandFailed, call

NEEDED = ("sinfo", "sbatch", "squeue", "scontrol", "scancel")
WAIT = 600.0


def run_checks(
    request: JobRequest | None = None,
    shared: str | os.PathLike[str] = ".",
    interface: str | None = None,
    *,
    fast: bool = False,
    wait: float = WAIT,
    log: Callable[[str], None] = lambda message: None,
) -> Iterator[Finding]:
    """Check everything that a study on Slurm needs, before it uses GPU-hours.

    Parameters
    ----------
    request : request of a worker job; None: one GPU of the default partition.
    shared : directory of the studies, which all machines must share.
    interface : network interface by which workers would reach this machine; None: found
        automatically, as by ``slurm_cluster``.
    fast : submit no job. Otherwise a small job checks what can be checked only inside a job.
    wait : seconds that the job may be pending; then it is cancelled.
    log : called with a line of text when the job's state changes.

    Yields
    ------
    Finding : each as soon as it is known.
    """
    request = JobRequest() if request is None else request
    path = Path(shared).absolute()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing == list(NEEDED) and request == JobRequest(
        python=request.python, container=request.container
    ):
        yield skipped("slurm", "there is no Slurm here; only this machine is checked")
    elif missing:
        none = "there is no Slurm here: " if missing == list(NEEDED) else ""
        hint = "use a login node, and check that all of Slurm's commands are on the PATH"
        yield problem("slurm", f"{none}{', '.join(missing)} not found", hint)
    if missing:
        yield from _check_here(path)
        yield from _check_machine()
        return
    is_blocked = False
    for finding in _check_request(request):
        is_blocked |= finding.verdict is Verdict.PROBLEM and finding.check not in _FULL_SIZE
        yield finding
    addresses, finding = _check_interface(interface, request.queue)
    yield finding
    is_blocked |= not addresses
    for finding in _check_here(path):
        is_blocked |= finding.verdict is Verdict.PROBLEM and finding.check == "shared directory"
        yield finding
    if fast:
        in_job: Iterable[Finding] = [skipped("job", "no job was submitted (--fast)")]
    elif is_blocked:
        in_job = [skipped("job", "no job was submitted: see the problems above")]
    else:
        in_job = run_probe(request, path, addresses, interface, wait, log)
    for finding in in_job:
        yield replace(finding, location=CheckLocation.JOB)


_FULL_SIZE = ("walltime", "nodes")  # the doctor's small job may run in spite of these


# -- Slurm ---------------------------------------------------------------------------------------


def _check_request(request: JobRequest) -> Iterator[Finding]:
    try:
        version = _version(ask(["sinfo", "--version"]))
        config = ask(["scontrol", "show", "config"])
        shown = ask(["scontrol", "--all", "--oneliner", "show", "partition"])
        nodes = slurm_checks.parse_sinfo(
            ask(["sinfo", "--all", "--noheader", f"--format={slurm_checks.SINFO_FORMAT}"])
        )
    except CommandFailed as error:
        hint = "check slurmctld with scontrol ping; at some sites only login nodes can reach it"
        yield problem("slurm", f"Slurm does not answer: {error}", hint)
        return
    partitions = [fields for fields in parse_records(shown) if "PartitionName" in fields]
    found = re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE)
    cluster = found[1] if found else ""
    yield ok("slurm", f"{version}, cluster {cluster}: the controller answers")
    finding = slurm_checks.check_partition(nodes, request.queue)
    yield finding
    if finding.verdict is Verdict.PROBLEM:
        return
    names = {group.name for group in slurm_checks.chosen(nodes, request.queue)}
    accounts = _accounts(cluster)
    account, qos = accounts.account(request), accounts.qos(request)
    mine = [fields for fields in partitions if fields["PartitionName"] in names]
    limits = accounts.limits(request, [fields.get("QoS", "") for fields in mine])
    access = [slurm_checks.check_access(fields, account, qos) for fields in mine]
    findings = [
        slurm_checks.check_walltime(nodes, request, limits),
        slurm_checks.check_nodes(nodes, request),
        *filter(None, access),
    ]
    yield from findings
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        yield skipped("request", "not tested by sbatch --test-only: see the problems above")
    else:
        yield _ask_to_take(request, accounts)


def _version(printed: str) -> str:
    found = re.search(r"^slurm[\w-]* \S+", printed, re.MULTILINE)
    return printed.strip() if found is None else found[0]


def _accounts(cluster: str) -> slurm_checks.Accounts:
    """Return the user's accounts; empty where Slurm keeps none."""
    show = ["sacctmgr", "--noheader", "--parsable2", "show"]
    user = ["user", "where", f"name={user_name()}", f"cluster={cluster}", "withassoc"]
    try:
        return slurm_checks.Accounts.parse(
            ask([*show, *user, f"format={slurm_checks.ASSOCIATION_FORMAT}"]),
            ask([*show, "qos", f"format={slurm_checks.QOS_FORMAT}"]),
        )
    except CommandError:
        return slurm_checks.Accounts()


def _ask_to_take(request: JobRequest, accounts: slurm_checks.Accounts) -> Finding:
    lines = [f"#SBATCH {option}" for option in request.options(request.seconds)]
    script = "\n".join(["#!/bin/sh", *lines, "#SBATCH --output=/dev/null\n"])
    try:
        printed = sbatch("--test-only", script=script, text=script)
    except CommandFailed as error:
        return slurm_checks.check_refusal(error.output, accounts)
    terms = accounts.account(request), accounts.qos(request)
    return slurm_checks.check_forecast(printed, time.time(), *terms)


# -- here ----------------------------------------------------------------------------------------


def _check_interface(
    interface: str | None, queue: str | None
) -> tuple[list[tuple[str, str]], Finding]:
    """Return names and addresses of this machine's interfaces, and the finding.

    The one that ``slurm_cluster`` would use is first. Without it the list is empty.
    """
    found = network.interfaces()
    try:
        first = network.named_address(interface) if interface else network.reachable_address(queue)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        return [], problem("interface", message, hint or "choose another --interface")
    name = next((one.name for one in found if one.address == first), "")
    rest = [one for one in found if one.address != first and not one.address.startswith("127.")]
    message = f"{name}, {first}" + ("" if interface else " (found automatically)")
    return [(name, first), *((one.name, one.address) for one in rest)], ok("interface", message)


def _check_here(path: Path) -> Iterator[Finding]:
    yield from check_limits()
    finding = _check_writable(path)
    yield finding
    if finding.verdict is Verdict.OK:
        room = os.statvfs(path)
        n_files = room.f_favail if room.f_files else None
        yield from check_room(room.f_bavail * room.f_frsize, n_files, _quotas(path))


def _check_writable(path: Path) -> Finding:
    check, hint = "shared directory", "check its permissions, or choose another --shared"
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return problem(check, f"{path} is not a directory", "choose another --shared")
    except FileNotFoundError:
        return problem(check, f"{path} does not exist", "create it, or choose another --shared")
    except OSError:
        pass  # writing fails as well, and says why
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".daskhpo-doctor-") as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        return problem(check, f"{path} cannot be written here: {error.strerror}", hint)
    return ok(check, f"{path} can be written here")


def _quotas(path: Path) -> list[Quota]:
    """Return the quotas that can be read; many sites use their own commands for them."""
    commands = [("user", ["quota", "-w", "-p", "-f", str(_mount_of(path))])]
    if type_of(str(path)) == "lustre":
        asked = [("user", "-u", os.getuid()), ("group", "-g", path.stat().st_gid)]
        commands = [(of, ["lfs", "quota", option, str(n), str(path)]) for of, option, n in asked]
    quotas = []
    for owner, argv in commands:
        try:
            quotas += parse_quota(call(argv, timeout=20), owner)
        except CommandFailed as error:  # "quota" fails if a quota is exceeded, but prints it
            quotas += parse_quota(error.output, owner)
        except CommandError:
            continue
    return quotas


def _mount_of(path: Path) -> Path:
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _check_machine() -> Iterator[Finding]:
    """Check a machine without Slurm: its Python, GPUs and scratch directory."""
    n_gpus = len(visible_gpus().names)
    yield from check_python(versions()[0], digest())
    if n_gpus:
        yield from within(CHECK_SECONDS, "gpu computing", lambda: check_gpus(n_gpus))
    else:
        yield skipped("gpu", "no GPU was found here")
    yield from check_scratch()
