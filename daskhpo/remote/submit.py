"""Submission of a study: all checks are made before the job queues for hours."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from daskhpo.cluster import jobs
from daskhpo.cluster.container import check_container
from daskhpo.cluster.directives import check_directives, check_worker_directives
from daskhpo.cluster.job_shape import SHAPE_OPTIONS, job_shape
from daskhpo.cluster.jobs import is_over
from daskhpo.cluster.shell import CommandError
from daskhpo.cluster.site_config import configured
from daskhpo.cluster.slurm import known_options, memory_size, slurm_cluster, worker_walltime
from daskhpo.cluster.times import parse_walltime, slurm_time
from daskhpo.core.arguments import (
    check_bool,
    check_int,
    check_lines,
    check_mapping,
    check_text,
    check_word,
    optional,
)
from daskhpo.core.errors import StudyExists, StudyLocked
from daskhpo.core.events import SessionStarted
from daskhpo.core.printable import shell_word
from daskhpo.core.resource_names import hint, meant
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import RunKeywords, RunOptions, merge_options
from daskhpo.engine.session import (
    check_startable,
    create_directory,
    has_work,
    study_records,
    with_last_limits,
)
from daskhpo.remote.script import controller_script
from daskhpo.remote.submission import (
    ControllerJob,
    JobDirectory,
    Submission,
    WorkerJobs,
    Workers,
    WorkerSteps,
)
from daskhpo.results.result import load_study

CORES, MEMORY = 2, "4GB"  # of a controller job: scheduler, coordinator, and a searcher with a model
RESERVED_OPTIONS = ("job_name", "name")
ONE_ALLOCATION_OPTIONS = (
    "jobs",
    "cores",
    "memory",
    "gpus_per_job",
    "trials_per_gpu",
    "gpus_per_trial",
    "processes",
    "interface",
    "python",
    "container",
)


class SubmitKeywords(RunKeywords, total=False):
    """Keywords of :meth:`daskhpo.Study.submit`: of its jobs, and options of the run.

    Attributes
    ----------
    workers : options of :func:`daskhpo.cluster.slurm_cluster` for the workers' jobs, such as
        ``{"jobs": 8, "queue": "gpu", "walltime": "04:00:00", "cores": 8, "memory": "32GB"}``.
    chain : maximum number of controller jobs, one after the other (default: 1). When one ends, by
        its walltime or for another reason, the next one continues.
    one_allocation : True: all in one job, with the workers as its steps, for sites where jobs may
        not submit jobs (default: False). ``workers`` then describes this job: ``jobs`` is its
        number of nodes; ``gpus_per_job``, ``cores`` and ``memory`` are those of each node.
    queue, account, cores, memory, job_extra_directives, job_script_prologue : options of the
        controller, as in ``slurm_cluster``; default: 2 cores and 4 GB.
    options : a :class:`daskhpo.RunOptions`, or None.
    """

    workers: Mapping[str, Any] | None
    chain: int
    one_allocation: bool
    queue: str | None
    account: str | None
    cores: int | None
    memory: str | None
    job_extra_directives: Sequence[str]
    job_script_prologue: Sequence[str]
    options: RunOptions | None


def prepare(
    problem: Problem,
    directory: Path,
    source: str,
    num_trials: int | None,
    time_budget: float | str | None,
    target: float | None,
    *,
    walltime: float | str,
    workers: Mapping[str, Any] | None = None,
    chain: int = 1,
    one_allocation: bool = False,
    queue: str | None = None,
    account: str | None = None,
    cores: int | None = None,
    memory: str | None = None,
    job_extra_directives: Sequence[str] = (),
    job_script_prologue: Sequence[str] = (),
    options: RunOptions | None = None,
    **keywords: Unpack[RunKeywords],
) -> Submission:
    """Check a submission and return it; see :meth:`daskhpo.Study.submit`.

    Parameters
    ----------
    directory : directory of the study.
    source : location of the study's definition, ``FILE.py:NAME``.
    """
    one_allocation = check_bool("one_allocation", one_allocation)
    if one_allocation and (cores is not None or memory is not None):
        raise ValueError(
            "cores= and memory= cannot be given with one_allocation, where there is one job for "
            "everything: give its cores and memory per node in workers="
        )
    if "callbacks" in keywords:
        raise TypeError(
            "callbacks cannot be sent to a job: follow the study with study.attach(callbacks=[...])"
        )
    worker_options = {} if workers is None else check_mapping("workers", workers)
    kind = _steps(worker_options) if one_allocation else _jobs(worker_options)
    limits = {"num_trials": num_trials, "time_budget": time_budget, "target": target}
    asked = merge_options("submit", options, limits | dict(keywords))
    asked = _fitted(with_last_limits(asked, directory), kind)
    asked.check_ends(problem.scheduler, problem.searcher)
    asked.warn_if_too_few(problem.scheduler)
    job = ControllerJob(
        walltime=parse_walltime(walltime),
        queue=optional(check_word, "queue", queue),
        account=optional(check_word, "account", account),
        cores=check_int("cores", CORES if cores is None else cores, at_least=1),
        memory=f"{_megabytes('memory', MEMORY if memory is None else memory)}M",
        directives=tuple(check_directives(job_extra_directives)),
        prologue=tuple(check_lines("job_script_prologue", job_script_prologue, multiline=True)),
        n_jobs=check_int("chain", chain, at_least=1),
    )
    seconds = _check_directory(problem, directory, asked)
    login = socket.gethostname()
    return Submission(source, asked, job, kind, seconds, os.getcwd(), login)


def submit(problem: Problem, directory: Path, submission: Submission) -> str:
    """Submit the controller job and return its number.

    Raises
    ------
    CommandError : there is no Slurm here, or it refuses the job. Nothing is left
        behind.
    ValueError : a walltime is longer than its partition allows: the job would never start.
    StudyLocked : an earlier submission runs the study, or will.
    """
    folder = JobDirectory(directory.absolute())
    if (number := folder.number()) is not None and (there := jobs.jobs_of(number)):
        path = shell_word(directory)
        raise StudyLocked(
            f"{directory} is already submitted as job {there[0].name} ({there[0].state}): wait for "
            f"it (`daskhpo attach {path}`), or cancel it (`daskhpo stop {path}`)"
        )
    _check_walltime("walltime", submission.job.walltime, submission.job.queue)
    if isinstance(submission.workers, WorkerJobs):
        worker_options = _defaults() | submission.workers.options
        seconds = worker_walltime(worker_options["walltime"])
        queue = worker_options["queue"] or configured("queue")
        _check_walltime("workers['walltime']", seconds, queue)
    script = controller_script(submission, folder)
    with contextlib.ExitStack() as undo:
        if not folder.study.exists():
            undo.callback(_remove, folder)
        create_directory(folder.study, problem, submission.source)
        folder.create()
        folder.write(submission)
        folder.script.write_text(script)
        number = jobs.submit(folder.script)
        undo.pop_all()
    folder.write_number(number)
    return number


# -- arguments -----------------------------------------------------------------------------------


def _fitted(options: RunOptions, workers: Workers) -> RunOptions:
    """Return the options with the GPUs that a worker has, unless they say how many.

    Raises
    ------
    ValueError : a trial needs more than a worker has.
    """
    extra = workers.options.get("worker_extra_args", ()) if isinstance(workers, WorkerJobs) else ()
    for name in options.resources:
        if meant(name) and f"{name}=" not in " ".join(extra):
            raise ValueError(f"resources={options.resources}: {hint([name])}")
    gpus, processes = _offer(workers)
    if gpus:
        options = replace(options, resources={"gpu": gpus} | options.resources)
    if (wanted := options.resources.get("gpu", 0)) > gpus:
        raise ValueError(
            f"resources={options.resources} asks for {wanted} GPUs per trial, but a worker has "
            f"{gpus:g}: no trial could run. Change gpus_per_job, gpus_per_trial or trials_per_gpu "
            "in workers="
        )
    if processes is not None and options.resources["cpu"] > processes:
        raise ValueError(
            f"resources={options.resources} asks for {options.resources['cpu']:g} CPUs per trial, "
            f"but a worker has {processes}: no trial could run. Change cores in workers="
        )
    return options


def _offer(workers: Workers) -> tuple[float, int | None]:
    """Return GPUs and CPUs of one worker process; None: number of CPUs not known."""
    match workers:
        case WorkerSteps(gpus=gpus, processes=processes, cores=cores):
            return gpus / processes, max(1, cores // processes)
        case WorkerJobs(worker_options):
            shape = job_shape(worker_options, "workers[{!r}]")
            total = worker_options.get("cores")
            return shape.gpu, None if total is None else max(1, total // shape.processes)


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(slurm_cluster).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _jobs(worker_options: dict[str, Any]) -> WorkerJobs:
    """Return workers as jobs of their own.

    Options that are not checked here are checked by ``slurm_cluster`` in the controller job.
    """
    import dask

    known = known_options()
    for name in worker_options:
        if name not in known:
            raise ValueError(
                f"workers[{name!r}] is not an option of slurm_cluster; its options are "
                f"{', '.join(name for name in _defaults() if name != 'options')}, and those of "
                "SLURMCluster"
            )
        if name in RESERVED_OPTIONS:
            raise ValueError(f"workers[{name!r}] cannot be given: the controller job sets it")
    shape = _defaults() | worker_options
    check_int("workers['jobs']", worker_options.get("jobs"), at_least=1)
    of_job = job_shape(worker_options, "workers[{!r}]")
    for name in ("queue", "account", "interface"):
        optional(check_word, f"workers[{name!r}]", shape[name])
    directives = check_directives(
        shape["job_extra_directives"] or (), "workers['job_extra_directives']"
    )
    check_worker_directives(directives, of_job)
    check_lines(
        "workers['job_script_prologue']", shape["job_script_prologue"] or (), multiline=True
    )
    worker_walltime(shape["walltime"])
    optional(check_text, "workers['python']", shape["python"])
    if shape["container"] is not None:
        check_container(shape["container"])
    for name in ("cores", "memory"):
        if shape[name] is None and dask.config.get(f"jobqueue.slurm.{name}", None) is None:
            raise ValueError(
                f"workers[{name!r}] must be given: the total of a job, such as cores=8, "
                "memory='32GB'"
            )
    n = of_job.processes
    cores = optional(check_int, "workers['cores']", shape["cores"], at_least=1)
    if cores is not None and cores < n:
        raise ValueError(
            f"workers['cores']={shape['cores']} must be at least {n}: one for each worker of a job"
        )
    try:
        json.dumps(worker_options)
    except TypeError as error:
        raise TypeError(f"workers= must be plain data that JSON can hold: {error}") from None
    return WorkerJobs(worker_options)


def _steps(worker_options: dict[str, Any]) -> WorkerSteps:
    """Return workers as steps of the controller job."""
    for name in worker_options:
        if name not in ONE_ALLOCATION_OPTIONS:
            raise ValueError(
                f"workers[{name!r}] cannot be given with one_allocation, where there is one job: "
                f"give it to submit() itself. workers= takes {', '.join(ONE_ALLOCATION_OPTIONS)}"
            )

    def count(name: str, default: int, at_least: int = 1) -> int:
        value = worker_options.get(name, default)
        return check_int(f"workers[{name!r}]", value, at_least=at_least)

    given = {name: worker_options[name] for name in SHAPE_OPTIONS if name in worker_options}
    shape = job_shape(given, "workers[{!r}]")
    per_node = shape.processes // shape.trials_per_gpu if shape.gpus else shape.processes
    cores = count("cores", per_node * shape.trials_per_gpu)
    if cores < per_node:
        raise ValueError(
            f"workers['cores']={cores} must be at least {per_node}: one for each worker of a node"
        )
    container = worker_options.get("container")
    if worker_options.get("memory") is None:
        raise ValueError(
            "workers['memory'] must be given with one_allocation: the memory of a node, such as "
            "'64GB', which its workers share evenly"
        )
    return WorkerSteps(
        nodes=count("jobs", 1),
        per_node=per_node,
        gpus=shape.gpus_per_trial if shape.gpus else 0,
        processes=shape.trials_per_gpu if shape.gpus else 1,
        cores=cores // per_node,
        megabytes=_megabytes("workers['memory']", worker_options["memory"]) // per_node,
        interface=optional(check_word, "workers['interface']", worker_options.get("interface")),
        python=optional(check_text, "workers['python']", worker_options.get("python")),
        container=None if container is None else tuple(check_container(container)),
    )


def _megabytes(name: str, memory: Any) -> int:
    """Return memory in Slurm's megabytes of 2**20 bytes, rounded up."""
    return max(1, math.ceil(memory_size(name, memory) / 2**20))


# -- directory and partition ---------------------------------------------------------------------


def _check_directory(problem: Problem, directory: Path, options: RunOptions) -> float:
    """Refuse a study that cannot continue or has nothing to do; return its time (s)."""
    check_startable(directory, problem, resume=True, job_is_over=is_over)
    began = seconds = 0.0
    for record in study_records(directory):
        seconds = max(seconds, record.seconds)
        began += isinstance(record, SessionStarted)
    if began and not has_work(directory, problem, options.limits, options.policy):
        n = load_study(directory).num_trials
        raise StudyExists(
            f"{directory} has nothing left to do: it has {n} trials, and all have ended. Give a "
            "larger num_trials, or another target"
        )
    return seconds


def _check_walltime(name: str, seconds: float, queue: str | None) -> None:
    """Refuse a walltime for which Slurm would accept the job, but never start it."""
    try:
        limit = jobs.longest_walltime(queue)
    except CommandError:
        return  # sbatch reports the problem
    if limit is not None and seconds > limit:
        raise ValueError(
            f"{name}={slurm_time(seconds)} is longer than "
            f"{f'partition {queue}' if queue else 'the default partition'} allows, "
            f"{slurm_time(limit)}: the job would never start"
        )


def _remove(folder: JobDirectory) -> None:
    """Remove the files that were made for a job that was refused."""
    for path in (folder.script, folder.path / "submission.json", folder.study / "study.json"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.path.rmdir()
        folder.study.rmdir()
