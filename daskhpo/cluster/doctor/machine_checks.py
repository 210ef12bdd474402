"""Checks of a machine for workers: limits, scratch directory, Python."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from daskhpo.cluster.doctor.finding import Finding, ok, problem, warning

LIMITS = (  # limit, check, least, why, option of ulimit
    (resource.RLIMIT_NOFILE, "open files", 1024, "each worker needs some", "-n"),
    (resource.RLIMIT_NPROC, "processes", 512, "workers have many threads", "-u"),
)
MIN_SCRATCH = 1_000_000_000
NETWORK = (
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "ceph", "fuse.sshfs", "panfs", "wekafs"),
)
MODULES = ("daskhpo", "dask", "distributed", "cloudpickle", "msgpack", "tornado", "numpy", "zarr")
SAME = ("python", "daskhpo", "dask", "distributed")  # other differences are only a warning
MIN_MEMORY = 1_500_000_000  # of a worker: Python with a deep learning library takes a third of it
SLOW_START = 30.0


def check_limits() -> Iterator[Finding]:
    """Check the limits of open files, processes and CPU time."""
    for limit, check, least, why, option in LIMITS:
        yield judge_limit(check, resource.getrlimit(limit), least, why, option)
    seconds, _ = resource.getrlimit(resource.RLIMIT_CPU)
    if seconds != resource.RLIM_INFINITY:
        message = f"a process is killed after {seconds} s of CPU time"
        yield warning("cpu time", message, "run the study inside a job with daskhpo submit")


def judge_limit(check: str, limits: tuple[int, int], least: int, why: str, option: str) -> Finding:
    """Judge a soft and a hard limit."""
    soft, hard = (math.inf if limit == resource.RLIM_INFINITY else limit for limit in limits)
    message = "no limit" if math.isinf(soft) else f"{soft:,} at a time"
    if soft >= least:
        return ok(check, message)
    return warning(check, f"{message}; {why}", f"run ulimit {option} {min(least, hard)}")


def check_scratch() -> Iterator[Finding]:
    """Check the directory that workers use for temporary files."""
    names = [name for name in ("SLURM_TMPDIR", "TMPDIR") if os.environ.get(name)]
    path = os.environ[names[0]] if names else tempfile.gettempdir()
    shown = f"{path} (${names[0]})" if names else path
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(1_000_000))
            file.flush()
        room = os.statvfs(path)
    except OSError as error:
        hint = "set TMPDIR to an existing directory in the job: --prologue 'export TMPDIR=...'"
        yield problem("scratch", f"{shown} cannot be written: {error}", hint)
    else:
        yield judge_scratch(shown, room.f_bavail * room.f_frsize, type_of(path))


def judge_scratch(path: str, n_bytes: int, kind: str) -> Finding:
    """Judge the free bytes of a directory, and the type of its file system."""
    message = f"{path}, {n_bytes / 1e9:.1f} GB free" + (f", {kind}" if kind else "")
    if n_bytes < MIN_SCRATCH:
        return warning("scratch", message, "set TMPDIR to a directory with more space")
    if kind in NETWORK:
        hint = "set TMPDIR to a local disk of the node: Dask's workers lock files and spill there"
        return warning("scratch", message, hint)
    return ok("scratch", message)


def type_of(path: str) -> str:
    """Return the type of a path's file system: ``"nfs4"``; empty: not known."""
    argv = ["df", "--output=fstype", path]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[-1]
    except (OSError, subprocess.SubprocessError):
        return ""


def check_python(here: Mapping[str, str], here_digest: str) -> Iterator[Finding]:
    """Import what a worker needs, and compare it with where the doctor runs."""
    import psutil

    there, errors = versions()
    yield judge_python(there, errors, here, digest() == here_digest)
    if not errors:
        from distributed.system import MEMORY_LIMIT

        yield from judge_worker(time.time() - psutil.Process().create_time(), MEMORY_LIMIT)


def versions() -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of Python and of imported packages, and errors of imports."""
    found, errors = {"python": platform.python_version()}, {}
    for name in MODULES:
        try:
            found[name] = getattr(importlib.import_module(name), "__version__", "?")
        except BaseException as error:
            errors[name] = f"{type(error).__name__}: {error}"
    return found, errors


def digest() -> str:
    """Return a short hash of all source files of daskhpo."""
    folder, found = _folder(), hashlib.sha1()
    for path in sorted(folder.rglob("*.py")):
        found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()[:10]


def judge_python(
    there: Mapping[str, str], errors: Mapping[str, str], here: Mapping[str, str], same_files: bool
) -> Finding:
    """Judge versions and errors of imports, in comparison with the doctor's."""
    which = f"{sys.executable} ({there['python']})"
    hint = "use the same environment: set --python, or activate it with --prologue"
    if errors:
        needed = [name for name in errors if name in SAME] or list(errors)
        message = f"{which} cannot import {', '.join(needed)}: {errors[needed[0]]}"
        return problem("python", message, hint)
    differ = [name for name in here if here[name] != there.get(name)]
    if here["python"].split(".")[:2] == there["python"].split(".")[:2]:
        differ = [name for name in differ if name != "python"]  # another patch release is fine
    if differ:
        shown = ", ".join(f"{name} {there.get(name)} there, {here[name]} here" for name in differ)
        verdict = problem if set(differ) & set(SAME) else warning
        return verdict("python", f"{which} has other versions: {shown}", hint)
    if not same_files:
        message = f"{which} has daskhpo {there['daskhpo']}, but other files, in {_folder()}"
        return problem("python", message, hint)
    return ok("python", f"{which}: {', '.join(f'{name} {there[name]}' for name in SAME[1:])}")


def judge_worker(seconds: float, memory: int) -> Iterator[Finding]:
    """Judge a worker's seconds until all is imported, and its bytes of memory."""
    if seconds > SLOW_START:
        hint = "copy the environment to a local disk of the node, or pack it"
        yield warning("import time", f"a worker takes {seconds:.0f} s to start", hint)
    message = f"a worker would have {memory / 1e9:.1f} GB"
    if memory < MIN_MEMORY:
        yield warning("memory", message, "Dask pauses a worker that needs more: increase --memory")
    else:
        yield ok("memory", message)


def _folder() -> Path:
    return Path(__file__).parents[2]
