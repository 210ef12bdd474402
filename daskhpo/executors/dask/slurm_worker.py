"""The worker processes of a Slurm job, and their Dask preload.

``python -m daskhpo.executors.dask.slurm_worker ADDRESS ...`` starts one worker process, under a
nanny, for each trial that runs at a time. Each process sees only its own GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo.cluster.gpus import NO_SOURCE, Gpus, visible_gpus
from daskhpo.cluster.job_shape import NODES
from daskhpo.cluster.security import private_folder
from daskhpo.cluster.walltime import END_TIME, find_job_end
from daskhpo.executors.dask.threads import THREAD_VARIABLES

logger = logging.getLogger("daskhpo.worker")

SCRATCH = ("SLURM_TMPDIR", "TMPDIR", "TMP")  # variables that name a folder on the node's disk


@dataclass(frozen=True)
class WorkerSlot:
    """One worker process of a job.

    Attributes
    ----------
    devices : GPUs that the process sees, as its environment names them.
    gpu : number of GPUs that a trial gets, on all its nodes, or part of one.
    """

    name: str
    devices: tuple[str, ...] = ()
    gpu: float = 0.0


def worker_slots(
    name: str,
    gpus: int,
    trials_per_gpu: int,
    processes: int,
    found: Gpus,
    gpus_per_trial: int = 1,
    nodes: int = 1,
) -> list[WorkerSlot]:
    """List the worker processes of a job, with the names that Dask's cluster expects.

    Parameters
    ----------
    gpus, found : number of GPUs to use on this node, and those that the job has here.
    gpus_per_trial, nodes : GPUs of a trial on all the job's nodes, and their number.

    Raises
    ------
    ValueError : there are fewer than ``gpus``.
    """
    if not gpus:
        return [WorkerSlot(f"{name}-{number}") for number in range(processes)]
    if len(found.names) < gpus:
        shown = ",".join(found.names) or "none"
        raise ValueError(
            f"{gpus} GPUs are to be used, and this job sees {len(found.names)} ({shown}), by "
            f"{found.source or NO_SOURCE}: request them in the job's script, for example with "
            f"--gres=gpu:{gpus}"
        )
    each = gpus_per_trial // nodes
    groups = [found.names[first : first + each] for first in range(0, gpus, each)]
    shares = [group for group in groups for _ in range(trials_per_gpu)]
    gpu = gpus_per_trial / trials_per_gpu
    return [WorkerSlot(f"{name}-{n}", devices, gpu) for n, devices in enumerate(shares)]


def scratch_directory(environ: Mapping[str, str]) -> str:
    """Return a folder on the node's disk: by the environment, else ``"/tmp"``."""
    for name in SCRATCH:
        folder = environ.get(name)
        if folder and Path(folder).is_dir() and os.access(folder, os.W_OK):
            return folder
    return "/tmp"


async def dask_setup(worker: Any) -> None:
    """Set up a worker process; Dask calls this before the worker takes tasks."""
    from daskhpo.executors.dask.shutdown import SHUTDOWN_PLUGIN, ShutdownPlugin
    from daskhpo.executors.dask.worker_setup import close_pages, ignore_sigint

    ignore_sigint()
    close_pages(worker)
    await worker.plugin_add(ShutdownPlugin(), name=SHUTDOWN_PLUGIN)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workers of this job until all of them have retired."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    args = _parser().parse_args(argv)
    found = visible_gpus() if args.gpus else Gpus()
    try:
        places = worker_slots(
            args.name,
            args.gpus,
            args.trials_per_gpu,
            args.processes,
            found,
            args.gpus_per_trial,
            args.nodes,
        )
    except ValueError as error:
        logger.error("%s", error)
        return 2
    end = find_job_end(args.walltime)
    variables = [_environment(place, found, end, args.nodes) for place in places]
    return asyncio.run(_serve(args, places, variables))


async def _serve(
    args: argparse.Namespace,
    places: Sequence[WorkerSlot],
    variables: Sequence[dict[str, str]],
) -> int:
    import dask
    from distributed import Nanny, Security

    from daskhpo.executors.dask.worker_setup import configured_preload

    given = {"tls_ca_file": args.tls_ca_file, "tls_worker_cert": args.tls_cert}
    given |= {"tls_worker_key": args.tls_key}
    tls = {name: value for name, value in given.items() if value is not None}
    security = Security(**tls, require_encryption=True) if tls else None
    scratch = dask.config.get("temporary-directory", None) or scratch_directory(os.environ)
    folder = str(private_folder(scratch))
    for name in THREAD_VARIABLES:  # a trial may use all the cores of its process
        dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": args.nthreads})
    nannies = [
        Nanny(
            args.scheduler,
            scheduler_file=args.scheduler_file,
            name=place.name,
            nthreads=args.nthreads,
            memory_limit=args.memory_limit,
            resources={"GPU": place.gpu} if place.gpu else None,
            local_directory=args.local_directory or folder,
            death_timeout=args.death_timeout,
            interface=args.interface,
            protocol=args.protocol,
            security=security,
            dashboard=False,  # not needed, and it would be open to all users
            preload=[*configured_preload(), __spec__.name],
            env=env,
        )
        for place, env in zip(places, variables, strict=True)
    ]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _forward_sigterm, nannies)
    started = await asyncio.gather(*nannies, return_exceptions=True)
    for place, outcome in zip(places, started, strict=True):
        if isinstance(outcome, BaseException):
            logger.error("worker %s did not start: %r", place.name, outcome)
    await asyncio.gather(*(nanny.finished() for nanny in nannies if _has_begun(nanny)))
    return int(all(isinstance(outcome, BaseException) for outcome in started))


def _environment(place: WorkerSlot, found: Gpus, end: float | None, nodes: int) -> dict[str, str]:
    environment = {} if end is None else {END_TIME: str(int(end))}
    if nodes > 1:
        environment[NODES] = str(nodes)
    return environment | (found.environment(place.devices) if place.devices else {})


def _has_begun(nanny: Any) -> bool:
    return nanny.status.name not in ("undefined", "created", "init", "failed", "closed")


def _forward_sigterm(nannies: Sequence[Any]) -> None:
    """Send SIGTERM to the workers, which may not have received it; they then retire."""
    logger.info("SIGTERM: trials are preempted, workers retire")
    for nanny in nannies:
        if nanny.pid is not None:
            nanny.close_gracefully(reason="SIGTERM")  # else it would restart the worker
            os.kill(nanny.pid, signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m daskhpo.executors.dask.slurm_worker", description=__doc__
    )
    parser.add_argument("scheduler", nargs="?", help="address of the scheduler")
    parser.add_argument("--scheduler-file", help="a file that contains the address")
    parser.add_argument("--name", default="worker", help="of the workers; -0, -1, ... is appended")
    parser.add_argument("--gpus", type=int, default=0, help="number of this node's GPUs to use")
    parser.add_argument("--gpus-per-trial", type=int, default=1, help="GPUs of each worker process")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of each trial")
    parser.add_argument("--trials-per-gpu", type=int, default=1, help="worker processes per GPU")
    parser.add_argument("--processes", type=int, default=1, help="workers of a job without GPUs")
    parser.add_argument("--nthreads", type=int, default=1, help="threads of each worker")
    parser.add_argument("--memory-limit", default="auto", help="memory of each worker")
    parser.add_argument("--walltime", type=float, help="seconds of the job, if Slurm reports none")
    parser.add_argument("--death-timeout", help="how long to wait for the scheduler")
    parser.add_argument("--local-directory", help="for workers' files; default: the node's scratch")
    parser.add_argument("--interface", help="network interface; default: the one to the scheduler")
    parser.add_argument("--protocol", help="of the connection, such as tls://")
    parser.add_argument("--tls-ca-file", help="certificate of the trusted authority")
    parser.add_argument("--tls-cert", help="certificate of the workers")
    parser.add_argument("--tls-key", help="key of that certificate")
    return parser


if __name__ == "__main__":
    sys.exit(main())
