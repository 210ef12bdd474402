"""What is to be said of the facts that a probe found: in a job, or on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped, warning
from daskhpo.cluster.doctor.probe_job import Facts, ProbeResult
from daskhpo.cluster.doctor.queue import JobState

MIN_FILES = 1024  # open at a time: Dask's scheduler has a few for each worker
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
SAME = ("python", "daskhpo", "dask", "distributed")  # others may differ at one's own risk
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
    """Whether the job did what it was to do."""
    state = visit.state
    where = state.nodes or visit.facts.get("hello", {}).get("host") or "a node"
    if "end" in visit.facts:
        return ok("job", f"job {visit.job} ran on {where}")
    message = f"job {visit.job} on {where} " + _end_of(state)
    last = _last_line(visit.output)
    if "hello" not in visit.facts:
        message += ", and nothing was heard of it"
        if last:
            message += f"; it printed: {last}"
        hint = "see that Python starts in a job: --python, and --prologue for modules to load"
        if not visit.output and state.exit_code == "0:0":
            hint = "its word comes by the network or the shared directory, and came by neither"
        return problem("job", message, hint)
    message += f" before it was through{f'; it printed: {last}' if last else ''}"
    return problem("job", message, "see what the last thing was that it looked at")


def check_connections(visit: ProbeResult, addresses: Sequence[tuple[str, str]]) -> list[Finding]:
    """Whether a worker reaches the scheduler here, and is reached."""
    hello = visit.facts.get("hello", {})
    if "reached" not in hello:
        message = hello.get("error", "nothing was heard from the job on this")
        return [skipped("worker to here", message), skipped("here to worker", message)]
    findings = []
    (name, host), tried = addresses[0], hello["reached"]
    errors = {one["host"]: one["error"] for one in tried}
    if not errors.get(host, "it was not tried"):
        findings.append(ok("worker to here", f"{host} ({name}) is reached from {hello['host']}"))
    else:
        message = f"{host} ({name}) is not reached from {hello['host']}: {errors.get(host)}"
        others = [one["name"] for one in tried if not one["error"]]
        hint = f"choose --interface {others[0]}" if others else _FIREWALL
        findings.append(problem("worker to here", message, hint))
    if "address_error" in hello:
        message, hint = hello["address_error"], "choose an --interface that both sides have"
        findings.append(problem("here to worker", message, hint))
    elif not visit.called:
        findings.append(skipped("here to worker", "the job does not know where it can be reached"))
    for there, error in visit.called.items():
        if error:
            message = f"{there} ({hello['host']}) is not reached from here: {error}"
            findings.append(problem("here to worker", message, _FIREWALL))
        else:
            findings.append(ok("here to worker", f"{there} is reached from here"))
    return findings


_FIREWALL = (
    "choose another --interface, or run the study inside a job: between jobs there is no firewall"
)


def check_clock(visit: ProbeResult) -> Finding:
    """Whether the clocks agree."""
    if math.isinf(visit.skew_error):
        return skipped("clock", "without a connection the clocks were not compared")
    skew, error = visit.skew, visit.skew_error
    if abs(skew) <= CLOCK_WARNING + (error if error > 1 else 0):
        return ok("clock", f"they agree within {max(abs(skew), error):.1f} s")
    message = (
        f"that of {_host(visit.facts)} is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    )
    hint = "tell the site's staff; certificates and walltimes are judged by these clocks"
    return (problem if abs(skew) > CLOCK_PROBLEM else warning)("clock", message, hint)


def check_shared(visit: ProbeResult, shared: str) -> Finding:
    """Whether the job sees the shared directory, under the same path, with the same content."""
    check, told = "shared directory", visit.facts.get("shared")
    if told is None or "error" in told:
        return skipped(check, told["error"] if told else "nothing was heard from the job on this")
    host, elsewhere = _host(visit.facts), "give --shared a directory that all machines share"
    if not told["there"]:
        return problem(check, f"{shared} is not there, seen from {host}", elsewhere)
    if not told.get("same"):
        message = told.get("read_error", "there is other content")
        return problem(
            check, f"{shared} is another directory, seen from {host}: {message}", elsewhere
        )
    if "write_error" in told:
        message = f"{host} cannot write in {shared}: {told['write_error']}"
        return problem(
            check, message, "see its permissions, and whether it is mounted read-only there"
        )
    kind = f" ({told['type']})" if told["type"] else ""
    if visit.wrote is None:
        message = f"what {host} wrote in {shared} was not seen here"
        return problem(check, message, elsewhere)
    message = f"{shared}{kind} is the same on {host}"
    if visit.wrote > 2:
        return warning(check, f"{message}, but news took {visit.wrote:.0f} s", "results come late")
    return ok(check, message)


def check_python(facts: Facts, here: Mapping[str, str], digest: str) -> list[Finding]:
    """Whether the same packages can be imported there, in the same versions."""
    told, hello = facts.get("python"), facts.get("hello", {})
    if told is None or "versions" not in told:
        reason = told["error"] if told else "nothing was heard from the job on this"
        return [(problem if told else skipped)("python", reason)]
    there = dict(told["versions"]) | ({"python": hello["version"]} if "version" in hello else {})
    which = f"{hello.get('executable', 'python')} ({there.get('python', 'of a version unknown')})"
    hint = "give --python the interpreter of your environment, or --prologue to activate it"
    version = [int(part) for part in there.get("python", "").split(".")[:2] if part]
    if version and tuple(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [problem("python", f"{which} is too old: daskhpo needs {oldest} or newer", hint)]
    if errors := told["errors"]:
        needed = [name for name in errors if name in SAME] or list(errors)
        message = f"{which} cannot import {', '.join(needed)}: {errors[needed[0]]}"
        return [problem("python", message, hint)]
    differ = {n: (here[n], there[n]) for n in here if n in there and here[n] != there[n]}
    if [int(part) for part in here.get("python", "").split(".")[:2] if part] == version:
        differ.pop("python", None)  # another patch of the same version will do
    findings = []
    shown = ", ".join(f"{n} {there_} there, {here_} here" for n, (here_, there_) in differ.items())
    hint = "use one environment: give --python, or --prologue to activate it"
    if set(differ) & set(SAME):
        findings.append(problem("python", f"{which} has other versions: {shown}", hint))
    elif differ:
        findings.append(warning("python", f"{which} has other versions: {shown}", hint))
    elif digest and told.get("digest") not in (None, digest):
        message = f"{which} has daskhpo {there['daskhpo']}, but other files, in {told['folder']}"
        findings.append(problem("python", message, hint))
    else:
        versions = ", ".join(f"{name} {there[name]}" for name in SAME[1:] if name in there)
        findings.append(ok("python", f"{which}: {versions}"))
    if told["seconds"] > SLOW_IMPORT:
        message = f"importing took {told['seconds']:.0f} s"
        hint = "workers start as slowly; copy the environment to a disk of the node, or pack it"
        findings.append(warning("import time", message, hint))
    if (memory := told.get("memory")) is not None:
        message = f"a worker would have {memory / 1e9:.1f} GB"
        if memory < MIN_MEMORY:
            hint = "Dask pauses a worker that needs more: ask for more --memory"
            findings.append(warning("memory", message, hint))
        else:
            findings.append(ok("memory", message))
    return findings


def check_gpus(facts: Facts, n_gpus: int) -> list[Finding]:
    """Whether the devices are there, and compute."""
    told, environment = facts.get("gpu"), facts.get("hello", {}).get("environment", {})
    if not n_gpus:
        return [skipped("gpu", "none was asked for")]
    name, value = next(((n, environment[n]) for n in VISIBLE if n in environment), ("", ""))
    visible = [device for device in value.split(",") if device.strip()]
    computed = _computed(told or {})
    findings = []
    if name and len(visible) >= n_gpus:
        findings.append(ok("gpu", f"{len(visible)} visible: {name}={value}"))
    elif not name and len(computed) >= n_gpus:
        findings.append(ok("gpu", f"{len(computed)} found"))
    elif name:
        message = f"{n_gpus} asked for, and {len(visible)} visible: {name}={value}"
        findings.append(problem("gpu", message, "see --gres, and GresTypes in the site's Slurm"))
    elif "environment" in facts.get("hello", {}):
        message = f"none is visible: {VISIBLE[0]} is not set"
        hint = "Slurm gave the job no device; see --gres, or the site's way to ask for one"
        findings.append(problem("gpu", message, hint))
    return [*findings, _check_computing(told, computed)]


def _check_computing(told: Mapping[str, Any] | None, computed: Sequence[Any]) -> Finding:
    check = "gpu computing"
    if told is None:
        return problem(check, "nothing was heard from the job on this", "a driver may hang there")
    if "error" in told:
        return problem(check, told["error"], "a driver may hang there: see nvidia-smi on that node")
    tried = told["tried"]
    for library, result in tried.items():
        if any(not device["agrees"] for device in result.get("devices", [])):
            wrong = ", ".join(
                device["name"] for device in result["devices"] if not device["agrees"]
            )
            message = f"{library} {result['version']} computes wrongly on {wrong}"
            return problem(check, message, "tell the site's staff, and keep off that node")
    if computed:
        library = next(name for name, result in tried.items() if result.get("devices"))
        names = ", ".join(sorted({device["name"] for device in computed}))
        seconds = tried[library]["seconds"]
        return ok(check, f"{library} {tried[library]['version']} on {names}, in {seconds:.1f} s")
    why = [
        " ".join(filter(None, (library, result.get("version"), _why_not(result))))
        for library, result in tried.items()
    ] or ["there is no torch, cupy or jax"]
    if not told["driver"]:
        why.append("the node has no driver of a GPU")
    message = f"nothing could be computed on a GPU: {'; '.join(why)}"
    if not told["driver"]:
        return warning(check, message, "trials would train on the CPU, or not at all")
    if any("problem" in result for result in tried.values()):
        return problem(check, message, "install a build for the driver of that node")
    return warning(check, message, "install a build for GPUs, or trials train on the CPU")


def _why_not(result: Mapping[str, Any]) -> str:
    return str(result.get("problem") or result.get("missing") or "finds no device")


def _computed(told: Mapping[str, Any]) -> list[Any]:
    results = told.get("tried", {}).values()
    return next((result["devices"] for result in results if result.get("devices")), [])


def check_process_limits(facts: Facts) -> list[Finding]:
    """Limits of processes and open files."""
    told = facts.get("limits")
    if told is None or "error" in told:
        return [skipped("limits", "they could not be read")]
    findings = []
    for name, check, least, why in (
        ("NOFILE", "open files", MIN_FILES, "each worker takes some"),
        ("NPROC", "processes", MIN_PROCESSES, "workers have many threads"),
    ):
        if name not in told:
            continue
        soft, hard = told[name]
        if soft is None or soft >= least:
            findings.append(ok(check, "no limit" if soft is None else f"{soft:,} at a time"))
        else:
            option = {"NOFILE": "-n", "NPROC": "-u"}[name]
            enough = hard is None or hard >= least
            hint = f"ulimit {option} {least if enough else hard}"
            findings.append(warning(check, f"{soft:,} at a time; {why}", hint))
    if (cpu := told.get("CPU", [None])[0]) is not None:
        message = f"a process may use the processor for {cpu} s, then it is killed"
        findings.append(warning("cpu time", message, "run the study's coordinator in a job"))
    return findings


def check_scratch(facts: Facts) -> Finding:
    """The folder for temporary files."""
    told = facts.get("scratch")
    if told is None or "error" in told:
        return skipped(
            "scratch", told["error"] if told else "nothing was heard from the job on this"
        )
    path = told["path"] + (f" (${told['name']})" if "name" in told else "")
    if "write_error" in told:
        hint = "set TMPDIR to a folder that is there, in the job: --prologue 'export TMPDIR=...'"
        return problem("scratch", f"{path} cannot be written: {told['write_error']}", hint)
    message = f"{path}, {told['free'] / 1e9:.1f} GB free" + (
        f", {told['type']}" if told["type"] else ""
    )
    if told["free"] < MIN_SCRATCH:
        return warning("scratch", message, "set TMPDIR to a folder with more room")
    if told["type"] in NETWORK:
        hint = "set TMPDIR to a disk of the node: Dask's workers lock and spill there"
        return warning("scratch", message, hint)
    return ok("scratch", message)


def _end_of(state: JobState) -> str:
    if not state.is_over:
        return f"is {state.state}, and was cancelled"
    return f"ended ({state.state}, exit code {state.exit_code})"


def _host(facts: Facts) -> str:
    return str(facts.get("hello", {}).get("host", "the job's node"))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
