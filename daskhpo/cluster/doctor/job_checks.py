"""Checks of the facts that the probe collected, in a job or on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped, warning
from daskhpo.cluster.doctor.probe_job import Facts, ProbeResult
from daskhpo.cluster.doctor.queue import JobState

MIN_FILES = 1024  # open at a time: Dask's scheduler needs a few for each worker
MIN_PROCESSES = 512
MIN_SCRATCH = 1_000_000_000
MIN_MEMORY = 1_500_000_000  # of a worker: Python with a deep learning library takes a third of it
SLOW_IMPORT = 30.0
OLDEST = (3, 11)  # version of Python
CLOCK_WARNING, CLOCK_PROBLEM = 2.0, 60.0
VISIBLE = (
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
)
SAME = ("python", "daskhpo", "dask", "distributed")  # other differences are only a warning
NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "ceph",
    "fuse.sshfs",
    "panfs",
    "wekafs",
)


def check_arrival(visit: ProbeResult) -> Finding:
    """Check that the job ran and sent all of its facts."""
    state = visit.state
    where = state.nodes or visit.facts.get("hello", {}).get("host") or "a node"
    if "end" in visit.facts:
        return ok("job", f"job {visit.job} ran on {where}")
    message = f"job {visit.job} on {where} " + _end_of(state)
    last = _last_line(visit.output)
    if "hello" not in visit.facts:
        message += ", and sent no results"
        if last:
            message += f"; the last line of its output: {last}"
        hint = "check that Python starts in a job: set --python, or load modules with --prologue"
        if not visit.output and state.exit_code == "0:0":
            hint = "results arrive over the network or the shared directory, and neither worked"
        return problem("job", message, hint)
    message += f" before it had finished{f'; the last line of its output: {last}' if last else ''}"
    return problem("job", message, "see which of the checks below have no result")


def check_connections(visit: ProbeResult, addresses: Sequence[tuple[str, str]]) -> list[Finding]:
    """Check the connections from a worker to the scheduler here, and back."""
    hello = visit.facts.get("hello", {})
    if "reached" not in hello:
        message = hello.get("error", "the job sent nothing about this")
        return [skipped("worker to here", message), skipped("here to worker", message)]
    findings = []
    (name, host), tried = addresses[0], hello["reached"]
    errors = {one["host"]: one["error"] for one in tried}
    if not errors.get(host, "it was not tried"):
        findings.append(ok("worker to here", f"{hello['host']} can connect to {host} ({name})"))
    else:
        message = f"{hello['host']} cannot connect to {host} ({name}): {errors.get(host)}"
        others = [one["name"] for one in tried if not one["error"]]
        hint = f"choose --interface {others[0]}" if others else _FIREWALL
        findings.append(problem("worker to here", message, hint))
    if "address_error" in hello:
        message, hint = hello["address_error"], "choose an --interface that both machines have"
        findings.append(problem("here to worker", message, hint))
    elif not visit.called:
        findings.append(skipped("here to worker", "the job found no address of its own"))
    for there, error in visit.called.items():
        if error:
            message = f"this machine cannot connect to {there} ({hello['host']}): {error}"
            findings.append(problem("here to worker", message, _FIREWALL))
        else:
            findings.append(ok("here to worker", f"this machine can connect to {there}"))
    return findings


_FIREWALL = (
    "choose another --interface, or run the study inside a job with daskhpo submit: between jobs "
    "there is no firewall"
)


def check_clock(visit: ProbeResult) -> Finding:
    """Check that the clocks agree."""
    if math.isinf(visit.skew_error):
        return skipped("clock", "the clocks were not compared: the job did not connect")
    skew, error = visit.skew, visit.skew_error
    if abs(skew) <= CLOCK_WARNING + (error if error > 1 else 0):
        return ok("clock", f"the clocks agree within {max(abs(skew), error):.1f} s")
    sign = "ahead" if skew > 0 else "behind"
    message = f"the clock of {_host(visit.facts)} is {abs(skew):.0f} s {sign}"
    hint = "tell your administrator: TLS certificates and walltimes depend on the clocks"
    return (problem if abs(skew) > CLOCK_PROBLEM else warning)("clock", message, hint)


def check_shared(visit: ProbeResult, shared: str) -> Finding:
    """Check that the job sees the same shared directory under the same path."""
    check, section = "shared directory", visit.facts.get("shared")
    if section is None or "error" in section:
        return skipped(check, section["error"] if section else "the job sent nothing about this")
    host, elsewhere = _host(visit.facts), "choose a --shared directory that all machines share"
    if not section["there"]:
        return problem(check, f"{shared} does not exist on {host}", elsewhere)
    if not section.get("same"):
        message = section.get("read_error", "its content differs")
        return problem(check, f"{shared} is another directory on {host}: {message}", elsewhere)
    if "write_error" in section:
        message = f"{host} cannot write to {shared}: {section['write_error']}"
        return problem(
            check, message, "check its permissions, and whether it is mounted read-only there"
        )
    kind = f" ({section['type']})" if section["type"] else ""
    if visit.wrote is None:
        message = f"a file that {host} wrote to {shared} was not seen here"
        return problem(check, message, elsewhere)
    message = f"{shared}{kind} is the same on {host}"
    if visit.wrote > 2:
        return warning(
            check,
            f"{message}, but a new file took {visit.wrote:.0f} s to appear",
            "results will arrive late",
        )
    return ok(check, message)


def check_python(facts: Facts, here: Mapping[str, str], digest: str) -> list[Finding]:
    """Check that the same packages can be imported there, in the same versions."""
    section, hello = facts.get("python"), facts.get("hello", {})
    if section is None or "versions" not in section:
        reason = section["error"] if section else "the job sent nothing about this"
        return [(problem if section else skipped)("python", reason)]
    there = dict(section["versions"]) | ({"python": hello["version"]} if "version" in hello else {})
    which = f"{hello.get('executable', 'python')} ({there.get('python', 'version unknown')})"
    hint = "set --python to the interpreter of your environment, or activate it with --prologue"
    version = [int(part) for part in there.get("python", "").split(".")[:2] if part]
    if version and tuple(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [problem("python", f"{which} is too old: daskhpo needs {oldest} or newer", hint)]
    if errors := section["errors"]:
        needed = [name for name in errors if name in SAME] or list(errors)
        message = f"{which} cannot import {', '.join(needed)}: {errors[needed[0]]}"
        return [problem("python", message, hint)]
    differ = {n: (here[n], there[n]) for n in here if n in there and here[n] != there[n]}
    if [int(part) for part in here.get("python", "").split(".")[:2] if part] == version:
        differ.pop("python", None)  # another patch release is fine
    findings = []
    shown = ", ".join(f"{n} {there_} there, {here_} here" for n, (here_, there_) in differ.items())
    hint = "use the same environment: set --python, or activate it with --prologue"
    if set(differ) & set(SAME):
        findings.append(problem("python", f"{which} has other versions: {shown}", hint))
    elif differ:
        findings.append(warning("python", f"{which} has other versions: {shown}", hint))
    elif digest and section.get("digest") not in (None, digest):
        message = f"{which} has daskhpo {there['daskhpo']}, but other files, in {section['folder']}"
        findings.append(problem("python", message, hint))
    else:
        versions = ", ".join(f"{name} {there[name]}" for name in SAME[1:] if name in there)
        findings.append(ok("python", f"{which}: {versions}"))
    if section["seconds"] > SLOW_IMPORT:
        message = f"importing took {section['seconds']:.0f} s"
        hint = (
            "workers start as slowly: copy the environment to a local disk of the node, or pack it"
        )
        findings.append(warning("import time", message, hint))
    if (memory := section.get("memory")) is not None:
        message = f"a worker would have {memory / 1e9:.1f} GB"
        if memory < MIN_MEMORY:
            hint = "Dask pauses a worker that needs more: increase --memory"
            findings.append(warning("memory", message, hint))
        else:
            findings.append(ok("memory", message))
    return findings


def check_gpus(facts: Facts, n_gpus: int) -> list[Finding]:
    """Check that the requested GPUs are visible, and compute correctly."""
    section, environment = facts.get("gpu"), facts.get("hello", {}).get("environment", {})
    if not n_gpus:
        return [skipped("gpu", "no GPU was requested")]
    name, value = next(((n, environment[n]) for n in VISIBLE if n in environment), ("", ""))
    visible = [device for device in value.split(",") if device.strip()]
    computed = _computed(section or {})
    findings = []
    if name and len(visible) >= n_gpus:
        findings.append(ok("gpu", f"{len(visible)} visible: {name}={value}"))
    elif not name and len(computed) >= n_gpus:
        findings.append(ok("gpu", f"{len(computed)} found"))
    elif name:
        message = f"{n_gpus} requested, but {len(visible)} visible: {name}={value}"
        findings.append(problem("gpu", message, "check --gres, and GresTypes in slurm.conf"))
    elif "environment" in facts.get("hello", {}):
        message = f"no GPU is visible: {VISIBLE[0]} is not set"
        hint = (
            "Slurm allocated no GPU to the job: check --gres, or how to request GPUs at your site"
        )
        findings.append(problem("gpu", message, hint))
    return [*findings, _check_computing(section, computed)]


def _check_computing(section: Mapping[str, Any] | None, computed: Sequence[Any]) -> Finding:
    check = "gpu computing"
    if section is None:
        return problem(check, "the job sent nothing about this", "its GPU driver may hang")
    if "error" in section:
        return problem(
            check, section["error"], "the GPU driver may hang: check nvidia-smi on that node"
        )
    tried = section["tried"]
    for library, result in tried.items():
        if any(not device["agrees"] for device in result.get("devices", [])):
            wrong = ", ".join(
                device["name"] for device in result["devices"] if not device["agrees"]
            )
            message = f"{library} {result['version']} computes wrong results on {wrong}"
            return problem(
                check, message, "tell your administrator, and exclude that node (sbatch --exclude)"
            )
    if computed:
        library = next(name for name, result in tried.items() if result.get("devices"))
        names = ", ".join(sorted({device["name"] for device in computed}))
        seconds = tried[library]["seconds"]
        return ok(check, f"{library} {tried[library]['version']} on {names}, in {seconds:.1f} s")
    why = [
        " ".join(filter(None, (library, result.get("version"), _why_not(result))))
        for library, result in tried.items()
    ] or ["torch, cupy and jax are not installed"]
    if not section["driver"]:
        why.append("the node has no GPU driver")
    message = f"no library can compute on a GPU: {'; '.join(why)}"
    if not section["driver"]:
        return warning(check, message, "trials would train on the CPU, or fail")
    if any("problem" in result for result in tried.values()):
        return problem(check, message, "install a build for the GPU driver of that node")
    return warning(check, message, "install a build for GPUs; else trials would train on the CPU")


def _why_not(result: Mapping[str, Any]) -> str:
    return str(result.get("problem") or result.get("missing") or "finds no device")


def _computed(section: Mapping[str, Any]) -> list[Any]:
    results = section.get("tried", {}).values()
    return next((result["devices"] for result in results if result.get("devices")), [])


def check_process_limits(facts: Facts) -> list[Finding]:
    """Check the limits of open files, processes and CPU time."""
    section = facts.get("limits")
    if section is None or "error" in section:
        return [skipped("limits", "the limits could not be read")]
    findings = []
    for name, check, least, why in (
        ("NOFILE", "open files", MIN_FILES, "each worker needs some"),
        ("NPROC", "processes", MIN_PROCESSES, "workers have many threads"),
    ):
        if name not in section:
            continue
        soft, hard = section[name]
        if soft is None or soft >= least:
            findings.append(ok(check, "no limit" if soft is None else f"{soft:,} at a time"))
        else:
            option = {"NOFILE": "-n", "NPROC": "-u"}[name]
            enough = hard is None or hard >= least
            hint = f"run ulimit {option} {least if enough else hard}"
            findings.append(warning(check, f"{soft:,} at a time; {why}", hint))
    if (cpu := section.get("CPU", [None])[0]) is not None:
        message = f"a process is killed after {cpu} s of CPU time"
        findings.append(
            warning("cpu time", message, "run the study inside a job with daskhpo submit")
        )
    return findings


def check_scratch(facts: Facts) -> Finding:
    """Check the directory for temporary files."""
    section = facts.get("scratch")
    if section is None or "error" in section:
        return skipped(
            "scratch", section["error"] if section else "the job sent nothing about this"
        )
    path = section["path"] + (f" (${section['name']})" if "name" in section else "")
    if "write_error" in section:
        hint = "set TMPDIR to an existing directory in the job: --prologue 'export TMPDIR=...'"
        return problem("scratch", f"{path} cannot be written: {section['write_error']}", hint)
    message = f"{path}, {section['free'] / 1e9:.1f} GB free" + (
        f", {section['type']}" if section["type"] else ""
    )
    if section["free"] < MIN_SCRATCH:
        return warning("scratch", message, "set TMPDIR to a directory with more space")
    if section["type"] in NETWORK:
        hint = "set TMPDIR to a local disk of the node: Dask's workers lock files and spill there"
        return warning("scratch", message, hint)
    return ok("scratch", message)


def _end_of(state: JobState) -> str:
    if not state.is_over:
        return f"was {state.state}, and was cancelled"
    return f"ended ({state.state}, exit code {state.exit_code})"


def _host(facts: Facts) -> str:
    return str(facts.get("hello", {}).get("host", "the job's node"))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
