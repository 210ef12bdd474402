"""All checks of the doctor: their order, and which depends on which."""

from __future__ import annotations

import getpass
import grp
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from daskhpo.cluster import network
from daskhpo.cluster.doctor import account as accounts_
from daskhpo.cluster.doctor import job_checks
from daskhpo.cluster.doctor import partition as partitions_
from daskhpo.cluster.doctor.fields import settings
from daskhpo.cluster.doctor.finding import (
    CheckLocation,
    Finding,
    Verdict,
    ok,
    problem,
    skipped,
    warning,
)
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.partition import Partition
from daskhpo.cluster.doctor.probe import digest, limits
from daskhpo.cluster.doctor.probe_job import MODULES, probe_locally, run_probe
from daskhpo.cluster.doctor.queue import check_forecast, check_refusal, check_start, check_wait
from daskhpo.cluster.doctor.quota import Quota, check_room, parse_quota
from daskhpo.cluster.shell import CommandFailed, CommandMissing, call

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

    Examples
    --------
    ::

        from daskhpo.cluster.doctor import JobRequest, Verdict, run_checks

        request = JobRequest(queue="gpu", walltime="04:00:00")
        for finding in run_checks(request, shared="/scratch/me/runs"):
            if finding.verdict is Verdict.PROBLEM:
                print(finding.message, finding.hint)
    """
    request = JobRequest() if request is None else request
    path = Path(shared).absolute()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if len(missing) == len(NEEDED):
        if request != JobRequest(python=request.python):
            hint = "use a login node, and check that Slurm's commands are on the PATH"
            yield problem("slurm", f"there is no Slurm here: {', '.join(missing)} not found", hint)
        else:
            yield skipped("slurm", "there is no Slurm here; only this machine is checked")
        yield from _check_here(path)
        yield from _check_machine()
        return
    if missing:
        hint = "check that all of Slurm's commands are on the PATH"
        yield problem("slurm", f"{', '.join(missing)} not found", hint)
        yield from _check_here(path)
        return
    blocked = False
    for finding in _check_request(request):
        blocked |= finding.verdict is Verdict.PROBLEM and finding.check in _OBSTACLES
        yield finding
    addresses, finding = _check_interface(interface, request.queue)
    yield finding
    writable = True
    for finding in _check_here(path):
        writable &= finding.verdict is not Verdict.PROBLEM or finding.check != "shared directory"
        yield finding
    if fast:
        yield replace(skipped("job", "no job was submitted (--fast)"), location=CheckLocation.JOB)
    elif blocked or not writable or not addresses:
        message = "no job was submitted: see the problems above"
        yield replace(skipped("job", message), location=CheckLocation.JOB)
    else:
        for finding in _check_job(request, path, addresses, interface, wait, log):
            yield replace(finding, location=CheckLocation.JOB)


_OBSTACLES = ("slurm", "partition", "gres", "account", "qos", "request")  # of the small job, too


# -- Slurm ---------------------------------------------------------------------------------------


def _check_request(request: JobRequest) -> Iterator[Finding]:
    try:
        version = call(["sinfo", "--version"]).strip()
        partitions = partitions_.parse_partitions(
            call(["scontrol", "--all", "--oneliner", "show", "partition"])
        )
        nodes = partitions_.parse_nodes(
            call(["sinfo", "--all", "--noheader", f"--format={partitions_.SINFO_FORMAT}"])
        )
        config = settings(call(["scontrol", "show", "config"]))
    except CommandFailed as error:
        hint = "check slurmctld with scontrol ping; at some sites only login nodes can reach it"
        yield problem("slurm", f"Slurm does not answer: {error}", hint)
        return
    yield ok(
        "slurm", f"{version}, cluster {config.get('ClusterName', '?')}: the controller answers"
    )
    finding = partitions_.check_partition(partitions, request.queue, _groups())
    yield finding
    if finding.verdict is Verdict.PROBLEM:
        return
    findings = [
        partitions_.check_walltime(partitions, request),
        partitions_.check_devices(nodes, partitions, request),
        *_check_accounts(request, partitions_.chosen(partitions, request.queue), config),
    ]
    yield from findings
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        yield skipped("request", "not tested by sbatch --test-only: see the problems above")
    else:
        yield _ask_to_take(request)


def _check_accounts(
    request: JobRequest, partitions: list[Partition], config: dict[str, str]
) -> list[Finding]:
    if "slurmdbd" not in config.get("AccountingStorageType", ""):
        if request.account:
            message = f"{request.account} has no effect: this Slurm has no accounting database"
            return [warning("account", message)]
        return [ok("account", "this Slurm has no accounting database")]
    user, cluster = getpass.getuser(), config.get("ClusterName", "")
    ask = ["sacctmgr", "--noheader", "--parsable2", "show"]
    try:
        accounts = accounts_.Accounts.read(
            call(
                [
                    *ask,
                    *("associations", "where", f"user={user}", f"cluster={cluster}"),
                    f"format={accounts_.ASSOCIATION_FORMAT}",
                ]
            ),
            call([*ask, "user", "where", f"name={user}", "format=User,DefaultAccount"]),
            call([*ask, "qos", f"format={accounts_.QOS_FORMAT}"]),
            config.get("AccountingStorageEnforce", ""),
        )
    except (CommandFailed, CommandMissing) as error:
        return [skipped("account", f"sacctmgr failed ({error}); sbatch --test-only tests it below")]
    finding = accounts_.check_account(accounts, partitions, request.account)
    if finding.verdict is Verdict.PROBLEM:
        return [finding]
    return [finding, accounts_.check_qos(accounts, partitions, request)]


def _ask_to_take(request: JobRequest) -> Finding:
    lines = [f"#SBATCH {option}" for option in request.options(request.seconds)]
    script = "\n".join(["#!/bin/sh", *lines, "#SBATCH --output=/dev/null\n"])
    try:
        printed = call(["sbatch", "--test-only"], text=script, with_errors=True)
    except CommandFailed as error:
        return check_refusal(error.output)
    return check_forecast(printed, time.time())


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
    yield from job_checks.check_process_limits({"limits": limits()})
    finding = _check_writable(path)
    yield finding
    if finding.verdict is Verdict.OK:
        room = os.statvfs(path)
        n_files = room.f_favail if room.f_files else None
        yield from check_room(room.f_bavail * room.f_frsize, n_files, _quotas(path))


def _check_writable(path: Path) -> Finding:
    check = "shared directory"
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return problem(check, f"{path} is not a directory", "choose another --shared")
    except FileNotFoundError:
        return problem(check, f"{path} does not exist", "create it, or choose another --shared")
    except OSError as error:
        return problem(check, f"{path} cannot be accessed here: {error.strerror}", _PERMISSIONS)
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".daskhpo-doctor-") as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        return problem(check, f"{path} cannot be written here: {error.strerror}", _PERMISSIONS)
    return ok(check, f"{path} can be written here")


_PERMISSIONS = "check its permissions, or choose another --shared"


def _quotas(path: Path) -> list[Quota]:
    """Return the quotas that can be read; many sites use their own commands for them."""
    from daskhpo.cluster.doctor.probe import type_of

    user = getpass.getuser()
    if type_of(str(path)) == "lustre":
        group = grp.getgrgid(path.stat().st_gid).gr_name
        asked = [("user", ["-u", user]), ("group", ["-g", group])]
        commands = [(owner, ["lfs", "quota", *which, str(path)]) for owner, which in asked]
    else:
        commands = [("user", ["quota", "-w", "-p", "-f", str(_mount_of(path))])]
    quotas = []
    for owner, argv in commands:
        try:
            quotas += parse_quota(call(argv, timeout=20), owner)
        except CommandMissing:
            continue
        except CommandFailed as error:  # "quota" fails if a quota is exceeded, but prints it
            quotas += parse_quota(error.output, owner)
    return quotas


def _mount_of(path: Path) -> Path:
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _check_machine() -> Iterator[Finding]:
    """Check a machine without Slurm: its Python, GPUs and scratch directory."""
    from daskhpo.cluster.gpus import visible_gpus

    n_gpus = len(visible_gpus())
    facts = probe_locally(gpu=bool(n_gpus))
    yield from job_checks.check_python(facts, {}, "")
    if n_gpus:
        yield from job_checks.check_gpus(facts, n_gpus)
    else:
        yield skipped("gpu", "no GPU was found here")
    yield job_checks.check_scratch(facts)


def _groups() -> list[str]:
    names = []
    for number in {os.getegid(), *os.getgroups()}:
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue  # such as a group of a container
    return names


# -- in a job ------------------------------------------------------------------------------------


def _check_job(
    request: JobRequest,
    path: Path,
    addresses: list[tuple[str, str]],
    interface: str | None,
    wait: float,
    log: Callable[[str], None],
) -> Iterator[Finding]:
    try:
        seen = run_probe(request, path, addresses, interface, wait, log)
    except CommandFailed as error:
        yield check_refusal(error.output)
        return
    if seen.state.waits and not seen.facts:
        yield check_wait(seen.job, seen.state, seen.waited)
        yield skipped("job", "nothing was checked in the job: it did not start")
        return
    yield check_start(seen.job, seen.state)
    yield job_checks.check_arrival(seen)
    if not seen.facts:
        return
    yield from job_checks.check_python(seen.facts, _versions(), digest(_package()))
    yield from job_checks.check_gpus(seen.facts, request.n_gpus)
    yield job_checks.check_shared(seen, str(path))
    yield from job_checks.check_connections(seen, addresses)
    yield job_checks.check_clock(seen)
    yield from job_checks.check_process_limits(seen.facts)
    yield job_checks.check_scratch(seen.facts)


def _versions() -> dict[str, str]:
    import importlib

    found = {name: importlib.import_module(name) for name in MODULES}
    versions = {name: getattr(module, "__version__", "?") for name, module in found.items()}
    return {"python": platform.python_version()} | versions


def _package() -> str:
    return str(Path(__file__).parents[2])
