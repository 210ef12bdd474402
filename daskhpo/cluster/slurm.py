"""Slurm jobs as Dask workers for GPU trials: one worker process per trial that runs at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def slurm_cluster(
    jobs: int,
    *,
    queue: str | None = None,
    account: str | None = None,
    walltime: str | None = None,
    cores: int | None = None,
    memory: str | None = None,
    gpus_per_job: int = 1,
    trials_per_gpu: int = 1,
    processes: int | None = None,
    max_gpu_hours: float | None = None,
    idle_timeout: float | str = "5 min",
    interface: str | None = None,
    security: Any = True,
    job_extra_directives: Sequence[str] = (),
    job_script_prologue: Sequence[str] = (),
    log_directory: str = "slurm-logs",
    shared_temp_directory: str | None = None,
    **options: Any,
) -> Any:
    """A ``dask_jobqueue.SLURMCluster`` set up for GPU trials, with its first jobs submitted.

    While it is open it keeps up to ``jobs`` jobs in the queue or running: it submits others for
    those that end, and cancels those that the study has no use for. Closing it cancels all.
    Words that dask-jobqueue has too mean the same there.

    Parameters
    ----------
    jobs : most jobs at a time.
    queue : the partition.
    account : what the jobs are charged to.
    walltime : of each job, such as ``"04:00:00"`` or ``"1-00:00:00"``.
    cores, memory : of each job, in all; its worker processes share them evenly.
    gpus_per_job : GPUs of each job. 1: a job is one GPU, which starts soonest and fails alone.
        More (a whole node): one worker process per GPU, each of which sees its own only. 0: none.
    trials_per_gpu : so many worker processes share each GPU; a trial then asks for
        ``resources={"gpu": 1 / trials_per_gpu}``.
    processes : worker processes of a job without GPUs; by default one.
    max_gpu_hours : what all jobs together may use, by the clock; no job is submitted that might
        exceed it, and the last ones may get a shorter walltime. Without GPUs: job-hours.
    idle_timeout : a job on which nothing has run for so long, because the study has no use for it,
        is cancelled. Seconds, or text.
    interface : network interface that workers reach this machine by; by default it is found.
    security : True: encrypted and authenticated by certificates made for this cluster. None: open
        to everybody who can reach this machine. Or a ``distributed.Security``.
    job_extra_directives : more ``#SBATCH`` lines, such as ``["-C gpu"]``. One that asks for GPUs
        replaces ``--gres=gpu:N``.
    job_script_prologue : lines of the job script before the workers start.
    log_directory : where the jobs' output goes.
    shared_temp_directory : on a file system that the jobs share, for the certificates; by default
        ``~/.daskhpo``.
    **options : anything else that ``SLURMCluster`` takes.

    Raises
    ------
    TypeError, ValueError : bad arguments; the message says what is allowed.
    CommandMissing, CommandFailed : there is no Slurm here, or it refuses the first job.
    RuntimeError : called in a thread for the first time.

    Examples
    --------
    ::

        with slurm_cluster(8, queue="gpu", walltime="04:00:00", cores=8, memory="32GB") as cluster:
            study.run(num_trials=500, client=cluster, resources={"cpu": 8, "gpu": 1})
    """
    raise NotImplementedError
