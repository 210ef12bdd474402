"""Slurm jobs as Dask workers for GPU trials: one worker process per slot."""

from __future__ import annotations

import inspect
import logging
import re
import shlex
import shutil
import signal
import sys
import threading
import uuid
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daskhpo.cluster.network import named_address, reachable_address
from daskhpo.cluster.security import credentials, removing_on_error
from daskhpo.cluster.times import parse_walltime, slurm_time
from daskhpo.core.arguments import (
    check_int,
    check_lines,
    check_number,
    check_path,
    check_text,
    check_word,
    optional,
    shown,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.quantities import check_duration

logger = logging.getLogger("daskhpo")

DEATH_TIMEOUT = 300  # seconds; a scheduler may be slow, but a GPU must not wait for long
ASKS_FOR_GPUS = re.compile(r"(^|\s)(-G|--gpus|--gres|--tres-per)")
UNSUPPORTED_OPTIONS = {
    "adapt": "jobs= limits the number of jobs",
    "asynchronous": "use the cluster from another thread",
    "n_workers": "give jobs=",
    "worker_command": "daskhpo has its own workers",
}


def slurm_cluster(
    jobs: int,
    *,
    queue: str | None = None,
    account: str | None = None,
    walltime: float | str = "30m",
    cores: int | None = None,
    memory: str | None = None,
    gpus_per_job: int = 1,
    trials_per_gpu: int = 1,
    processes: int | None = None,
    max_gpu_hours: float | None = None,
    idle_timeout: float | str = "5m",
    interface: str | None = None,
    security: Any = True,
    job_extra_directives: Sequence[str] = (),
    job_script_prologue: Sequence[str] = (),
    log_directory: str = "slurm-logs",
    shared_temp_directory: str | None = None,
    **options: Any,
) -> Any:
    """Start a cluster for GPU trials, a ``dask_jobqueue.SLURMCluster``, on Slurm.

    Its first jobs are submitted at once. While it is open, it keeps up to ``jobs`` jobs pending or
    running: it replaces jobs that end, and cancels jobs that the study does not need. Closing it
    cancels all jobs. Options that dask-jobqueue has too mean the same there.

    Parameters
    ----------
    jobs : largest number of jobs at a time.
    queue : the partition; None: the site's default.
    account : account that is charged for the jobs; None: the user's default.
    walltime : time limit of each job: ``"4h"``, ``"04:00:00"``, ``"1-00:00:00"``, or seconds.
    cores, memory : those of each job in total; its worker processes share them evenly.
    gpus_per_job : GPUs of each job. 1: the job starts soonest, and its failure affects no other
        GPU. More (a whole node): one worker process per GPU, which sees only that one. 0: no GPU.
    trials_per_gpu : number of worker processes that share each GPU; a trial then requests
        ``resources={"gpu": 1 / trials_per_gpu}``.
    processes : worker processes of a job without GPUs; None: one.
    max_gpu_hours : budget of all jobs together, in GPU-hours of run time; None: no limit. No job
        is submitted that might exceed it; the last ones may get a shorter walltime. Without GPUs:
        job-hours.
    idle_timeout : time after which an idle job that the study does not need is cancelled; seconds,
        or text such as ``"5m"``.
    interface : network interface by which workers reach this machine; None: found automatically.
    security : True: encrypted and authenticated by certificates made for this cluster. None: open
        to every user who can reach this machine, with a warning. Or a ``distributed.Security``.
    job_extra_directives : more ``#SBATCH`` lines, such as ``["-C gpu"]``. One that requests GPUs
        replaces ``--gres=gpu:N``.
    job_script_prologue : lines of the job script before the workers start.
    log_directory : directory for the jobs' output.
    shared_temp_directory : directory for the certificates, on a file system that the jobs share;
        None: ``~/.daskhpo``.
    **options : other options of ``SLURMCluster``.

    Raises
    ------
    TypeError, ValueError : invalid arguments; the message says what is allowed.
    CommandMissing, CommandFailed : Slurm's commands are missing here; Slurm rejects the first job.
    RuntimeError : the first call was not made in the main thread, in which dask-jobqueue must be
        imported.

    Examples
    --------
    ::

        with slurm_cluster(8, queue="gpu", walltime="04:00:00", cores=8, memory="32GB") as cluster:
            study.run(num_trials=500, client=cluster, resources={"cpu": 8, "gpu": 1})
    """
    options = _checked(options)
    jobs = check_int("jobs", jobs, at_least=1)
    gpus_per_job = check_int("gpus_per_job", gpus_per_job, at_least=0)
    trials_per_gpu = check_int("trials_per_gpu", trials_per_gpu, at_least=1)
    processes = optional(check_int, "processes", processes, at_least=1)
    cores = optional(check_int, "cores", cores, at_least=1)
    if memory is not None:
        memory_size("memory", memory)
    queue = optional(check_word, "queue", queue)
    account = optional(check_word, "account", account)
    interface = optional(check_word, "interface", interface)
    job_extra_directives = check_directives(job_extra_directives)
    job_script_prologue = check_lines("job_script_prologue", job_script_prologue, multiline=True)
    logs = check_path("log_directory", log_directory).absolute()
    shared = optional(check_path, "shared_temp_directory", shared_temp_directory)
    _check_security(security)
    if gpus_per_job and processes is not None:
        raise ValueError(
            f"processes={processes!r} is for jobs without GPUs; a job with GPUs has gpus_per_job * "
            f"trials_per_gpu = {gpus_per_job * trials_per_gpu} worker processes"
        )
    n_slots = gpus_per_job * trials_per_gpu or (1 if processes is None else processes)
    if cores is not None and cores < n_slots:
        raise ValueError(f"cores={cores!r} must be at least {n_slots}: one for each worker process")
    from daskhpo.cluster.scaling import ScalingLimits

    seconds = -(-parse_walltime(walltime) // 60) * 60  # Slurm counts minutes
    rules = ScalingLimits(
        jobs,
        n_slots,
        gpus_per_job or 1,
        seconds,
        None
        if (hours := optional(check_number, "max_gpu_hours", max_gpu_hours, above=0)) is None
        else hours * 3600,
        check_duration("idle_timeout", idle_timeout),
    )
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    job_name = options.pop("job_name", "daskhpo-workers")
    more_arguments = options.pop("worker_extra_args", [])

    def of_walltime(seconds: float) -> dict[str, Any]:
        """Return dask-jobqueue's options for a job with this walltime, in seconds."""
        own = ["--gpus", gpus_per_job, "--trials-per-gpu", trials_per_gpu, "--processes", n_slots]
        own += ["--walltime", int(seconds)]
        return {"walltime": slurm_time(seconds), "worker_extra_args": [*own, *more_arguments]}

    directives = _directives(job_extra_directives, gpus_per_job, logs, job_name)
    slurm_class = _import_jobqueue()
    from daskhpo.cluster.autoscaler import SlurmAutoscaler

    listen = _address(interface, queue, options) | options.pop("scheduler_options", {})
    folder = None
    if security is True:
        folder = (shared or Path.home() / ".daskhpo").absolute() / f"tls-{uuid.uuid4().hex[:12]}"
        security = credentials(folder)
        slurm_class = removing_on_error(slurm_class, folder)
    cluster = slurm_class(
        queue=queue,
        account=account,
        cores=cores,
        memory=memory,
        processes=n_slots,
        interface=interface,
        security=security or None,
        job_name=job_name,
        python=f"exec {shlex.quote(sys.executable)}",  # Slurm's signals reach Python, not a shell
        worker_command="daskhpo.executors.dask.slurm_worker",
        job_extra_directives=directives,
        job_script_prologue=job_script_prologue,
        **{"name": "daskhpo", "death_timeout": DEATH_TIMEOUT, "silence_logs": "error"}
        | of_walltime(seconds)
        | options,
        scheduler_options=listen,
    )
    if folder is not None:
        weakref.finalize(cluster, shutil.rmtree, folder, ignore_errors=True)
        cluster._job_kwargs["security"] = _shell_quoted(security)
    # In a group: Dask does not end the job of a lost worker, and its nanny restarts the worker.
    cluster.new_spec["group"] = [f"-{number}" for number in range(n_slots)]
    cluster.autoscaler = SlurmAutoscaler(cluster, rules, of_walltime, job_name, logs)
    try:
        cluster.sync(cluster.autoscaler.start)
    except BaseException:
        cluster.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return cluster


def known_options() -> set[str]:
    """Return all options of :func:`slurm_cluster`, also those for ``SLURMCluster``."""
    takers: list[Any] = [slurm_cluster]
    takers += [kind.__init__ for kind in (*_import_jobqueue().__mro__, *_job_kinds())]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {
        parameter.name
        for taker in takers
        for parameter in inspect.signature(taker).parameters.values()
        if parameter.kind in named
    }
    return names - {"self", "scheduler", "worker", "workers", *UNSUPPORTED_OPTIONS}


def _job_kinds() -> Sequence[type]:
    from dask_jobqueue.slurm import SLURMJob

    kinds: Sequence[type] = SLURMJob.__mro__
    return kinds


def _import_jobqueue() -> Any:
    """Import ``SLURMCluster``, and restore the handler of SIGINT that this replaces."""
    if "dask_jobqueue" not in sys.modules:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "slurm_cluster was called in a thread, but dask-jobqueue can be imported only in "
                "the main thread: call it there, or `import dask_jobqueue` there first"
            )
        handler = signal.getsignal(signal.SIGINT)
        try:
            import dask_jobqueue  # noqa: F401
        finally:
            signal.signal(signal.SIGINT, handler)
    from dask_jobqueue import SLURMCluster

    return SLURMCluster


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name, why in UNSUPPORTED_OPTIONS.items():
        if name in options:
            raise TypeError(f"slurm_cluster does not take {name}=: {why}")
    for name, value in options.items():  # they become words and lines of the job script
        if isinstance(value, str):
            check_text(name, value)
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                if isinstance(item, str):
                    check_text(f"{name}[{number}]", item, lines=True)
    return dict(options)


def check_directives(given: Any) -> list[str]:
    """Return options of ``sbatch``, without ``#SBATCH``, each a line of a script."""
    lines = check_lines("job_extra_directives", given)
    return [line.removeprefix("#SBATCH ").strip() for line in lines]


def memory_size(name: str, memory: Any) -> int:
    """Return memory in bytes, from text such as ``"32GB"``, as dask-jobqueue reads it."""
    from dask.utils import parse_bytes

    check_text(name, memory, why="text such as '32GB'")
    try:
        n_bytes = int(parse_bytes(memory))
    except (ValueError, TypeError, AttributeError):
        raise InvalidArgument(
            f"{name}={memory!r} is not understood; give text like '4GB'"
        ) from None
    return check_int(name, n_bytes, at_least=1, why="bytes")


def _check_security(security: Any) -> None:
    if security is None or security is False:
        warnings.warn(
            f"security={security!r}: the cluster is neither encrypted nor authenticated. Every "
            "user who can reach this machine can run code as you: leave security=True, unless "
            "no user else can",
            stacklevel=3,
        )
    elif security is not True and not hasattr(security, "get_connection_args"):
        raise InvalidArgument(
            f"security={shown(security)} must be True, None or a distributed.Security"
        )


def _address(interface: str | None, queue: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the scheduler's options for the addresses on which it listens.

    The dashboard asks for no password, so it listens on loopback only.
    """
    import dask

    listens: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    own = options.get("scheduler_options", {})
    if "host" in own or "interface" in own:
        return listens
    if interface is None:
        interface = dask.config.get("jobqueue.slurm.interface", None)
    return listens | {"host": named_address(interface) if interface else reachable_address(queue)}


def _directives(given: Sequence[str], gpus: int, logs: Path, job_name: str) -> list[str]:
    lines = check_directives(given)
    log = f"{str(logs).replace('%', '%%')}/{job_name.replace('%', '%%')}-%j.log"
    own = [f'--output="{log}"' if re.search(r"\s", log) else f"--output={log}"]
    if gpus and not any(ASKS_FOR_GPUS.search(line) for line in lines):
        own.append(f"--gres=gpu:{gpus}")
    if not any("requeue" in line for line in lines):
        own.append("--no-requeue")  # a new job follows, with other names of workers
    return own + lines


def _shell_quoted(security: Any) -> Any:
    """Return a copy with paths quoted for the shell, as the job script needs them."""
    from distributed import Security

    own = security.get_tls_config_for_role("worker")
    return Security(
        require_encryption=True,
        tls_ca_file=shlex.quote(own["ca_file"]),
        tls_worker_cert=shlex.quote(own["cert"]),
        tls_worker_key=shlex.quote(own["key"]),
    )
