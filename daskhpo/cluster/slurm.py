"""Slurm jobs as Dask workers for GPU trials: one worker process per slot."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import sys
import threading
import uuid
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daskhpo.cluster.container import check_container, interpreter
from daskhpo.cluster.directives import asks_for_gpus, check_directives, check_worker_directives
from daskhpo.cluster.guard import guard_pages
from daskhpo.cluster.job_shape import JobShape, job_shape
from daskhpo.cluster.network import named_address, reachable_address
from daskhpo.cluster.registry import JobRegistry
from daskhpo.cluster.security import credentials, removing_on_error
from daskhpo.cluster.site_config import (
    check_skipped,
    check_worker_arguments,
    configured,
    configured_lines,
)
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

DEATH_TIMEOUT = 300  # seconds; a scheduler may be slow, but a GPU must not wait for long
WALLTIME = "30m"
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
    walltime: float | str | None = None,
    cores: int | None = None,
    memory: str | None = None,
    gpus_per_job: int | None = None,
    trials_per_gpu: int = 1,
    gpus_per_trial: int = 1,
    nodes_per_trial: int = 1,
    processes: int | None = None,
    max_gpu_hours: float | None = None,
    idle_timeout: float | str = "5m",
    interface: str | None = None,
    security: Any = True,
    python: str | None = None,
    container: str | Sequence[str] | None = None,
    job_extra_directives: Sequence[str] | None = None,
    job_script_prologue: Sequence[str] | None = None,
    log_directory: str | None = None,
    shared_temp_directory: str | None = None,
    **options: Any,
) -> Any:
    """Start a cluster for GPU trials, a ``dask_jobqueue.SLURMCluster``, on Slurm.

    Its first jobs are submitted at once. While it is open, it keeps up to ``jobs`` jobs pending or
    running: it replaces jobs that end, and cancels jobs that the study does not need. Closing it
    cancels all jobs. Options that dask-jobqueue has too mean the same there. What a call leaves
    open is as the user or the site has set it in ``jobqueue.yaml``.

    Parameters
    ----------
    jobs : largest number of jobs at a time.
    queue : the partition; None: the site's default.
    account : account that is charged for the jobs; None: the user's default.
    walltime : time limit of each job: ``"4h"``, ``"04:00:00"``, ``"1-00:00:00"``, or seconds;
        default: 30 minutes.
    cores, memory : those of each job in total; its worker processes share them evenly. With
        ``nodes_per_trial``: those of each node.
    gpus_per_job : GPUs of each job; None: those of one trial. 1: the job starts soonest, and its
        failure affects no other GPU. More (a whole node): one worker process per GPU, or per
        ``gpus_per_trial``, which sees only its own. 0: no GPU.
    trials_per_gpu : number of worker processes that share each GPU; a trial then requests
        ``resources={"gpu": 1 / trials_per_gpu}``.
    gpus_per_trial : number of GPUs of each worker process; a trial then requests as many, such as
        ``resources={"gpu": 4}``, and uses them by :func:`daskhpo.distributed.launch`.
    nodes_per_trial : number of nodes of each job. More than 1: the job is one trial's, and
        ``gpus_per_trial`` are its GPUs on all of them; ``launch`` starts ranks on each.
    processes : worker processes of a job without GPUs; None: one.
    max_gpu_hours : budget of all jobs together, in GPU-hours of run time; None: no limit. No job
        is submitted that might exceed it; the last ones may get a shorter walltime. Without GPUs:
        job-hours.
    idle_timeout : time after which an idle job that the study does not need is cancelled; seconds,
        or text such as ``"5m"``.
    interface : network interface by which workers reach this machine; None: found automatically.
    security : True: encrypted and authenticated by certificates made for this cluster. None: open
        to every user who can reach this machine, with a warning. Or a ``distributed.Security``.
    python : Python of the workers, as words of a shell such as ``"~/env/bin/python"``; None: the
        one that runs this.
    container : image of Apptainer or Singularity in which the workers run, with daskhpo installed:
        ``"image.sif"``, or options of ``apptainer exec`` and the image. It sees the job's GPUs, the
        current directory, and the folders that are named here; None: no container.
    job_extra_directives : more ``#SBATCH`` lines, such as ``["-C gpu"]``. One that requests GPUs
        replaces ``--gres=gpu:N``. Those that say what daskhpo counts, such as ``--time``, are
        refused.
    job_script_prologue : lines of the job script before the workers start.
    log_directory : directory for the jobs' output; default: ``slurm-logs``.
    shared_temp_directory : directory for the certificates, on a file system that the jobs share;
        default: ``~/.daskhpo``.
    **options : other options of ``SLURMCluster``.

    Raises
    ------
    TypeError, ValueError : invalid arguments; the message says what is allowed.
    CommandError : Slurm's commands are missing here; Slurm rejects the first job.
    RuntimeError : the first call was not made in the main thread, in which dask-jobqueue must be
        imported.

    Examples
    --------
    ::

        with slurm_cluster(8, queue="gpu", walltime="04:00:00", cores=8, memory="32GB") as cluster:
            study.run(num_trials=500, client=cluster, resources={"cpu": 8, "gpu": 1})
    """
    options = _checked(options)
    section = options.get("config_name") or "slurm"
    jobs = check_int("jobs", jobs, at_least=1)
    if processes is None and gpus_per_job == 0 and nodes_per_trial == 1:
        processes = configured("processes", section)
    shape = job_shape(
        {
            "gpus_per_job": gpus_per_job,
            "trials_per_gpu": trials_per_gpu,
            "gpus_per_trial": gpus_per_trial,
            "nodes_per_trial": nodes_per_trial,
            "processes": processes,
        }
    )
    cores = optional(check_int, "cores", cores, at_least=1)
    if memory is not None:
        memory_size("memory", memory)
    queue = optional(check_word, "queue", configured("queue", section) if queue is None else queue)
    account = optional(check_word, "account", account)
    interface = optional(check_word, "interface", interface)
    if job_extra_directives is None:
        job_extra_directives = configured_lines("job-extra-directives", section)
    job_extra_directives = check_directives(job_extra_directives)
    check_worker_directives(job_extra_directives, shape)
    if job_script_prologue is None:
        job_script_prologue = configured_lines("job-script-prologue", section)
    job_script_prologue = check_lines("job_script_prologue", job_script_prologue, multiline=True)
    if log_directory is None:
        log_directory = configured("log-directory", section) or "slurm-logs"
    logs = check_path("log_directory", log_directory).absolute()
    if shared_temp_directory is None:
        shared_temp_directory = configured("shared-temp-directory", section)
    shared = optional(check_path, "shared_temp_directory", shared_temp_directory)
    _check_security(security)
    n_slots = shape.processes
    if shape.nodes > 1 and container is not None:
        raise ValueError(
            f"nodes_per_trial={shape.nodes} and container={shown(container)}: ranks on other nodes "
            "are started by srun, which a container does not have; give python= instead"
        )
    if cores is not None and cores < n_slots:
        raise ValueError(f"cores={cores!r} must be at least {n_slots}: one for each worker process")
    from daskhpo.cluster.scaling import ScalingLimits

    seconds = -(-worker_walltime(walltime, section) // 60) * 60  # Slurm counts minutes
    rules = ScalingLimits(
        jobs,
        n_slots,
        shape.gpus or 1,
        seconds,
        None
        if (hours := optional(check_number, "max_gpu_hours", max_gpu_hours, above=0)) is None
        else hours * 3600,
        check_duration("idle_timeout", idle_timeout),
    )
    job_name = options.pop("job_name", None) or configured("name", section) or "daskhpo-workers"
    more_arguments = options.pop("worker_extra_args", None)
    if more_arguments is None:
        more_arguments = configured_lines("worker-extra-args", section)
    more_arguments = check_worker_arguments(more_arguments)
    skip = options.pop("job_directives_skip", None)
    if skip is None:
        skip = configured_lines("job-directives-skip", section)
    if shape.nodes > 1:
        skip = [*skip, "#SBATCH -n 1"]  # there is one task on each node
    skip = check_skipped(skip, [f"#SBATCH -t {slurm_time(seconds)}", f"#SBATCH -J {job_name}"])
    if python is None and container is None:
        python = configured("python", section)
    python = optional(check_text, "python", python)
    if container is not None:
        container = check_container(container)
    slurm_class = cluster_class()
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of_walltime(seconds: float) -> dict[str, Any]:
        """Return dask-jobqueue's options for a job with this walltime, in seconds."""
        own = ["--gpus", shape.gpus_per_node, "--trials-per-gpu", shape.trials_per_gpu]
        own += ["--processes", n_slots, "--walltime", int(seconds)]
        if shape.gpus_per_trial > 1 or shape.nodes > 1:
            own += ["--gpus-per-trial", shape.gpus_per_trial, "--nodes", shape.nodes]
        return {"walltime": slurm_time(seconds), "worker_extra_args": [*own, *more_arguments]}

    directives = _directives(job_extra_directives, shape, logs, job_name)
    from daskhpo.cluster.autoscaler import SlurmAutoscaler

    own_scheduler = options.pop("scheduler_options", None)
    if own_scheduler is None:
        own_scheduler = configured("scheduler-options", section) or {}
    if interface is None:
        interface = configured("interface", section)
    listen = _address(interface, queue, own_scheduler) | own_scheduler
    folder = None
    if security is True:
        folder = (shared or Path.home() / ".daskhpo").absolute() / f"tls-{uuid.uuid4().hex[:12]}"
        security = credentials(folder)
        slurm_class = removing_on_error(slurm_class, folder)
    folders = [logs, *([] if folder is None else [folder])]
    program = interpreter(python, container, shape.gpus, folders)
    registry = JobRegistry()
    cluster = slurm_class(
        registry=registry,
        queue=queue,
        account=account,
        cores=cores,
        memory=memory,
        processes=n_slots,
        interface=interface,
        security=security or None,
        job_name=job_name,
        python=f"exec {program.command}",  # Slurm's signals reach Python, not a shell
        worker_command="daskhpo.executors.dask.slurm_worker",
        job_extra_directives=directives,
        # else dask-jobqueue's lines would send errors to another file
        job_directives_skip=["#SBATCH -e ", "#SBATCH -o ", *skip],
        job_script_prologue=[*job_script_prologue, *program.prologue],
        **{
            "name": "daskhpo",
            "death_timeout": configured("death-timeout", section) or DEATH_TIMEOUT,
            "silence_logs": "error",
        }
        | of_walltime(seconds)
        | options,
        scheduler_options=listen,
    )
    if folder is not None:
        weakref.finalize(cluster, shutil.rmtree, folder, ignore_errors=True)
        cluster._job_kwargs["security"] = _shell_quoted(security)
    # In a group: Dask does not end the job of a lost worker, and its nanny restarts the worker.
    cluster.new_spec["group"] = [f"-{number}" for number in range(n_slots)]
    requeues = any("requeue" in line and "no-requeue" not in line for line in directives)
    cluster.autoscaler = SlurmAutoscaler(cluster, registry, rules, of_walltime, logs, requeues)
    try:
        guard_pages(cluster.scheduler)
        cluster.sync(cluster.autoscaler.start)
    except BaseException:
        cluster.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return cluster


def worker_walltime(walltime: float | str | None, section: str = "slurm") -> float:
    """Return the time limit of worker jobs in seconds; None: as configured."""
    if walltime is None:
        walltime = configured("walltime", section) or WALLTIME
    return parse_walltime(walltime)


def known_options() -> set[str]:
    """Return all options of :func:`slurm_cluster`, also those for ``SLURMCluster``."""
    takers: list[Any] = [slurm_cluster]
    takers += [kind.__init__ for kind in (*cluster_class().__mro__, *_job_kinds())]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {
        parameter.name
        for taker in takers
        for parameter in inspect.signature(taker).parameters.values()
        if parameter.kind in named
    }
    own = {"self", "scheduler", "worker", "workers", "registry"}
    return names - {*own, *UNSUPPORTED_OPTIONS}


def _job_kinds() -> Sequence[type]:
    from dask_jobqueue.slurm import SLURMJob

    kinds: Sequence[type] = SLURMJob.__mro__
    return kinds


def cluster_class() -> Any:
    """Import our ``SLURMCluster``; dask-jobqueue wants the main thread for that."""
    is_main = threading.current_thread() is threading.main_thread()
    if "dask_jobqueue" not in sys.modules and not is_main:
        raise RuntimeError(
            "slurm_cluster was called in a thread, but dask-jobqueue can be imported only in "
            "the main thread: call it there, or `import dask_jobqueue` there first"
        )
    from daskhpo.cluster.jobqueue import RegisteredCluster

    return RegisteredCluster


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


def _address(interface: str | None, queue: str | None, own: dict[str, Any]) -> dict[str, Any]:
    """Return the scheduler's options for the addresses on which it listens.

    The dashboard is not encrypted, so it listens on loopback only.

    Parameters
    ----------
    own : options that the user gave.
    """
    listens: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    if "host" in own or "interface" in own:
        return listens
    return listens | {"host": named_address(interface) if interface else reachable_address(queue)}


def _directives(given: Sequence[str], shape: JobShape, logs: Path, job_name: str) -> list[str]:
    lines = list(given)
    log = f"{str(logs).replace('%', '%%')}/{job_name.replace('%', '%%')}-%j.log"
    own = [f'--output="{log}"' if re.search(r"\s", log) else f"--output={log}"]
    if shape.nodes > 1:
        own += [f"--nodes={shape.nodes}", "--ntasks-per-node=1"]
    if shape.gpus and not asks_for_gpus(lines):
        own.append(f"--gres=gpu:{shape.gpus_per_node}")
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
